// How to test a protocol of your own: over a network in memory that loses, repeats and delays, or
// passes nothing for a while. The protocol's code is what would run over sockets. Time is virtual:
// a minute takes no time, and a seed always gives the same events, so what failed can be replayed.
//
// The protocol: a client pays in, one coin a request, numbered; what is not answered is sent again,
// after growing pauses; the bank counts each number once. With --bug it counts all that comes.
//
// Build  cc sim_test.c -o sim_test          (Windows: add -lws2_32)
// Try    ./sim_test                         and: ./sim_test --bug; ./sim_test --bug 3
#define NETIO_IMPLEMENTATION
#include "../netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COINS = 50, TRIES_MAX = 15, PAUSE_MS = 200, PAUSE_MAX_MS = 3200 };

// --- the protocol -------------------------------------------------------------------------------

static struct bank {
    uint32_t last, coins;
} bank;

static struct client {
    netio_loop *loop;
    netio_udp udp;
    netio_timer again;
    uint32_t number; // of the request that is under way
    int tries, sent, pause_ms;
} client;

static bool bug;

static void bank_takes(netio_udp u, netio_datagram *msgs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t number = 0;
        if (msgs[i].len == sizeof number) memcpy(&number, msgs[i].data, sizeof number);
        if (bug || number == bank.last + 1) bank.coins++;
        if (number == bank.last + 1) bank.last = number;
    }
    netio_udp_send_batch(u, msgs, count); // the answer, which may get lost as well
}

static void ask(void *user)
{
    (void)user;
    netio_udp_send(client.udp, &client.number, sizeof client.number, NULL);
    client.sent++;
    if (client.tries++ == TRIES_MAX) netio_loop_stop(client.loop); // it gives up
    else netio_timer_once(&client.again, client.loop, client.pause_ms, ask, NULL);
    if (client.pause_ms < PAUSE_MAX_MS) client.pause_ms *= 2;
}

static void client_takes(netio_udp u, netio_datagram *msgs, size_t count)
{
    (void)u;
    for (size_t i = 0; i < count; i++) {
        if (msgs[i].len != sizeof client.number) continue;
        if (memcmp(msgs[i].data, &client.number, sizeof client.number) != 0) continue; // an old one
        netio_timer_stop(client.again);
        client.tries = 0;
        client.pause_ms = PAUSE_MS;
        if (client.number++ < COINS) ask(NULL);
        else netio_loop_stop(client.loop);
    }
}

// --- the test -----------------------------------------------------------------------------------

static const struct {
    const char *name;
    netio_link link;
    int cut_ms; // nothing passes for so long, after the first 100 ms
} networks[] = {
    {"good", {.latency_ms = 1}, 0},
    {"lossy", {.latency_ms = 20, .loss_permille = 200, .duplicate_permille = 50}, 0},
    {"reordering", {.latency_ms = 20, .jitter_ms = 300, .duplicate_permille = 200}, 0},
    {"cut for 5 s", {.latency_ms = 20}, 5000},
};

// Returns whether all coins arrived, each once.
static bool play(int which, uint64_t seed)
{
    static const netio_udp_handler bank_handler = {.on_datagrams = bank_takes};
    static const netio_udp_handler client_handler = {.on_datagrams = client_takes};
    netio_network_opts opts = {.seed = seed, .link = networks[which].link};
    netio_loop_opts bank_opts = {.host = "10.0.0.1"}, client_opts = {.host = "10.0.0.2"};
    netio_udp_opts peer = {.peer = "10.0.0.1:7000"};
    netio_link cut = {.cut = true};
    netio_network *net = NULL;
    netio_loop *loop = NULL;
    bank = (struct bank){0};
    client = (struct client){.number = 1, .pause_ms = PAUSE_MS};

    int err = netio_network_create(&net, &opts);
    bank_opts.network = client_opts.network = net;
    if (err == 0) err = netio_loop_create(&loop, &bank_opts);
    if (err == 0) err = netio_loop_create(&client.loop, &client_opts);
    if (err == 0) err = netio_udp_open(NULL, loop, ":7000", &bank_handler, NULL);
    if (err == 0) err = netio_udp_open(&client.udp, client.loop, NULL, &client_handler, &peer);
    uint64_t start_us = net ? netio_network_now_us(net) : 0;
    if (err == 0) ask(NULL);
    if (err == 0) err = netio_network_run(net, 100);
    if (err == 0 && networks[which].cut_ms) {
        netio_network_link(net, NULL, NULL, &cut);
        err = netio_network_run(net, networks[which].cut_ms);
        netio_network_link(net, NULL, NULL, &networks[which].link);
    }
    if (err == 0) err = netio_network_run(net, -1); // until the client stops its loop
    bool right = err == 0 && client.number > COINS && bank.coins == COINS;
    printf("%-11s seed %u: %u of %d answered, %u counted, %d requests, %.1f s%s\n",
           networks[which].name, (unsigned)seed, (unsigned)client.number - 1, COINS,
           (unsigned)bank.coins, client.sent,
           net ? (double)(netio_network_now_us(net) - start_us) / 1e6 : 0,
           err < 0 ? netio_strerror(err)
           : right ? ""
                   : "  <-- WRONG");
    netio_loop_destroy(client.loop);
    netio_loop_destroy(loop);
    netio_network_destroy(net);
    return right;
}

int main(int argc, char **argv)
{
    int wrong = 0;
    bug = argc > 1 && strcmp(argv[1], "--bug") == 0;
    uint64_t only = argc > 1 + bug ? strtoul(argv[1 + bug], NULL, 10) : 0;
    for (int which = 0; which < (int)(sizeof networks / sizeof *networks); which++)
        for (uint64_t seed = only ? only : 1; seed <= (only ? only : 5); seed++)
            wrong += !play(which, seed);
    printf("%d wrong\n", wrong);
    return wrong > 0;
}
