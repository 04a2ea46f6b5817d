// <sys/event.h> for Linux, for tests only: what the BSDs declare and kqueue.c beside it imitates.
//
// Put this file's parent directory on the include path and link kqueue.c as its head says. Values
// and layout are those of FreeBSD and macOS; programs must use the names alone.
#ifndef NETIO_TEST_SYS_EVENT_H
#define NETIO_TEST_SYS_EVENT_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kevent {
    uintptr_t ident;      // the descriptor; EVFILT_USER: any number
    short filter;         // EVFILT_*
    unsigned short flags; // EV_*
    unsigned fflags;      // EVFILT_USER: NOTE_*; with EV_EOF: the socket's error
    int64_t data;         // bytes to read, room to write, backlog; with EV_ERROR: errno or 0
    void *udata;
};

// The arguments are read once each, as programs pass `p++` and the like.
#define EV_SET(kev, a_ident, a_filter, a_flags, a_fflags, a_data, a_udata)                         \
    do {                                                                                           \
        struct kevent *kev_ = (kev);                                                               \
        kev_->ident = (uintptr_t)(a_ident);                                                        \
        kev_->filter = (short)(a_filter);                                                          \
        kev_->flags = (unsigned short)(a_flags);                                                   \
        kev_->fflags = (unsigned)(a_fflags);                                                       \
        kev_->data = (int64_t)(a_data);                                                            \
        kev_->udata = (void *)(a_udata);                                                           \
    } while (0)

#define EVFILT_READ  (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_USER  (-11)

#define EV_ADD      0x0001u
#define EV_DELETE   0x0002u
#define EV_ENABLE   0x0004u
#define EV_DISABLE  0x0008u
#define EV_ONESHOT  0x0010u
#define EV_CLEAR    0x0020u
#define EV_RECEIPT  0x0040u
#define EV_DISPATCH 0x0080u
#define EV_ERROR    0x4000u // only comes back
#define EV_EOF      0x8000u // only comes back

#define NOTE_FFNOP      0x00000000u
#define NOTE_FFAND      0x40000000u
#define NOTE_FFOR       0x80000000u
#define NOTE_FFCOPY     0xc0000000u
#define NOTE_FFCTRLMASK 0xc0000000u
#define NOTE_FFLAGSMASK 0x00ffffffu
#define NOTE_TRIGGER    0x01000000u

int kqueue(void);
int kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
           const struct timespec *timeout);

// Not BSD's. The same as close(kq), which is redirected here at link time: for who cannot do that.
int kqueue_shim_close(int kq);

#ifdef __cplusplus
}
#endif
#endif // NETIO_TEST_SYS_EVENT_H
