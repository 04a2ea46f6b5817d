// What timers cost, refreshed as idle limits are (to a later time), with few and with 100,000 of
// them running: start, refresh (netio_timer_reset) and stop, in nanoseconds each. The clock of the
// network in memory stands still, so nothing fires.
//
//     cc -O2 -I. bench/timers.c -o timers -lpthread && ./timers [--quick]
#define NETIO_IMPLEMENTATION
#include "netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 100000 };

static netio_timer timers[MANY];

static void never(void *user) { (void)user; }

static uint32_t random_state = 1;

static uint32_t dice(void) // xorshift
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

static double ns_each(uint64_t since_us, size_t count)
{
    return (double)(netio_now_us() - since_us) * 1000.0 / (double)count;
}

// With `count` timers that run, `ops` refreshes of one or another of them.
static int measure(size_t count, size_t ops)
{
    netio_network *net;
    netio_loop *loop;
    netio_loop_opts opts;
    memset(&opts, 0, sizeof opts);
    if (netio_network_create(&net, NULL) < 0) return 1;
    opts.network = net;
    if (netio_loop_create(&loop, &opts) < 0) return 1;
    uint64_t at = netio_now_us();
    for (size_t i = 0; i < count; i++)
        if (netio_timer_once(&timers[i], loop, 10000 + (int)(dice() % 10000), never, NULL) < 0)
            return 1;
    double start = ns_each(at, count);
    at = netio_now_us();
    for (size_t i = 0; i < ops; i++) netio_timer_reset(timers[dice() % count], 30000);
    double refresh = ns_each(at, ops);
    at = netio_now_us();
    for (size_t i = 0; i < count; i++) netio_timer_stop(timers[i]);
    printf("%7lu timers: start %6.1f ns, refresh %6.1f ns, stop %6.1f ns\n", (unsigned long)count,
           start, refresh, ns_each(at, count));
    netio_loop_destroy(loop);
    netio_network_destroy(net);
    return 0;
}

int main(int argc, char **argv)
{
    size_t ops = argc > 1 && strcmp(argv[1], "--quick") == 0 ? 10000 : 1000000;
    int failed = 0;
    for (size_t count = 100; count <= MANY; count *= 10) failed |= measure(count, ops);
    return failed;
}
