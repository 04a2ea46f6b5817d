// Every macro and every options struct of the declarations in the hands of a user, in C and in C++:
// nothing in them may warn under the user's own flags (an old-style cast in a macro would).
#include "netio.h"

#ifdef __cplusplus
#define ZERO {}
#else
#define ZERO {0}
#endif

int uses(void);
int uses(void)
{
    netio_addr addr = ZERO;
    netio_buf buf = ZERO;
    netio_error error = ZERO;
    netio_resolve_opts resolve = ZERO;
    netio_room room = ZERO;
    netio_setting setting = ZERO;
    netio_socket_opts opts = ZERO;
    netio_socket s = NETIO_INVALID_SOCKET;
    char text[NETIO_ADDR_TEXT];
    int err = NETIO_EAGAIN;
#ifndef NETIO_NO_POLLER
    netio_event event = ZERO;
    if (event.events != 0 || event.socket == s) return 1;
#endif
    text[0] = 0;
    opts.settings = &setting;
    opts.resolve = resolve;
    if (s != NETIO_INVALID_SOCKET || err == NETIO_OK) return 1;
    if (buf.len != room.cap || error.err != 0 || addr.len != 0) return 1;
    return NETIO_VERSION_MAJOR + NETIO_VERSION_MINOR + NETIO_VERSION_PATCH + text[0] +
           (opts.type == NETIO_STREAM ? NETIO_RESOLVE_MAX : 0);
}
