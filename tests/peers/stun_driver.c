// STUN for test_stun.py, which compiles it:
//     stun_driver ask HOST:PORT    prints what a server says, one line: "OK addr=... software=HEX"
//     stun_driver serve ADDRESS    answers until it is killed
#define NETIO_IMPLEMENTATION
#define NETIO_NO_POLLER // and what else is not needed: it is compiled for each run
#define NETIO_NO_WEBSOCKET
#define NETIO_NO_PROXY
#define NETIO_NO_SOCKS
#define NETIO_NO_HELPERS
#include "netio.h"

#include "../../examples/common/stun.h"

#include <stdio.h>

typedef struct asked {
    uint8_t id[STUN_ID];
    stun_message answer;
    uint8_t bytes[STUN_MAX]; // of the answer
} asked;

static bool is_answer(void *user, netio_buf got)
{
    asked *a = (asked *)user;
    if (got.len > sizeof a->bytes) return false;
    memcpy(a->bytes, got.data, got.len);
    return stun_parse(&a->answer, a->bytes, got.len) == 0 && stun_is(&a->answer, a->id) &&
           (a->answer.type == STUN_SUCCESS || a->answer.type == STUN_ERROR);
}

static int ask(const char *address)
{
    static asked a;
    uint8_t request[64], got[STUN_MAX];
    char text[NETIO_ADDR_TEXT] = "";
    netio_addr to, local;
    netio_socket s;
    uint64_t seed = netio_now_us();
    for (size_t i = 0; i < STUN_ID; i++) { // good enough for a test, where nobody guesses
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        a.id[i] = (uint8_t)(seed >> 56);
    }
    ptrdiff_t len = stun_write(request, sizeof request, STUN_REQUEST, a.id);
    len = stun_add_text(request, sizeof request, (size_t)len, STUN_SOFTWARE, "netio's test");
    len = stun_add_fingerprint(request, sizeof request, (size_t)len);
    netio_buf bytes = {request, (size_t)len};
    netio_room room = {got, sizeof got};
    ptrdiff_t err = netio_resolve(address, &to, 1, NULL, 5000);
    if (err > 0) err = netio_connect(&s, address, &(netio_socket_opts){.type = NETIO_DGRAM}, 5000);
    if (err == 0) {
        err = netio_query(s, &to, bytes, room, is_answer, &a, 5, 200);
        netio_local_addr(s, &local);
        netio_close(&s);
    }
    if (err < 0) {
        printf("%s\n", netio_errname(err));
        return 1;
    }
    if (a.answer.mapped.len) netio_addr_format(&a.answer.mapped, text, sizeof text);
    printf("OK addr=%s error=%d unknown=%d fingerprint=%d", text, a.answer.error,
           (int)a.answer.unknown_count, a.answer.fingerprint);
    netio_addr_format(&local, text, sizeof text);
    printf(" local=%s software=", text);
    for (size_t i = 0; i < a.answer.software.len; i++)
        printf("%02x", ((const uint8_t *)a.answer.software.data)[i]);
    printf("\n");
    return 0;
}

static int serve(const char *address)
{
    uint8_t in[STUN_MAX + 1], out[256];
    char text[NETIO_ADDR_TEXT];
    netio_addr from;
    netio_socket s;
    int err = netio_bind(&s, address, NULL);
    if (err == 0) err = netio_local_addr(s, &from);
    if (err == 0) err = netio_addr_format(&from, text, sizeof text);
    if (err < 0) return 1;
    printf("listening on %s\n", text);
    fflush(stdout);
    for (;;) {
        ptrdiff_t n = netio_recvfrom(s, in, sizeof in, &from, -1);
        if (n > 0) n = stun_answer(out, sizeof out, in, (size_t)n, &from, "netio's test");
        if (n > 0) netio_sendto(s, out, (size_t)n, &from, 1000);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "ask") == 0) return ask(argv[2]);
    if (argc == 3 && strcmp(argv[1], "serve") == 0) return serve(argv[2]);
    fprintf(stderr, "usage: stun_driver ask|serve ADDRESS\n");
    return 2;
}
