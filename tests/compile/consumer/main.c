// One message to ourselves over loopback TCP, and back.
#include <netio.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    netio_socket listener, client, server;
    netio_addr a;
    char text[NETIO_ADDR_TEXT], buf[64] = "";
    ptrdiff_t n;

    if (netio_listen(&listener, "127.0.0.1:0", NULL) < 0) return 1;
    if (netio_local_addr(listener, &a) < 0) return 2;
    if (netio_addr_format(&a, text, sizeof text) < 0) return 3;
    if (netio_connect(&client, text, NULL, 5000) < 0) return 4;
    if (netio_accept(&server, listener, NULL, 5000) < 0) return 5;
    if (netio_send_all(client, "hello", 5, NULL, 5000) < 0) return 6;
    if ((n = netio_recv(server, buf, sizeof buf, 5000)) <= 0) return 7;
    if (netio_send_all(server, buf, (size_t)n, NULL, 5000) < 0) return 8;
    memset(buf, 0, sizeof buf);
    if (netio_recv_exact(client, buf, 5, NULL, 5000) < 0) return 9;
    netio_close(&client);
    netio_close(&server);
    netio_close(&listener);
    printf("netio %s at %s: %s\n", NETIO_VERSION, text, buf);
    return strcmp(buf, "hello") != 0;
}
