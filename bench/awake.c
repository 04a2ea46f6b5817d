// awake.c: a spinner of the lowest priority on one core. A virtual machine's core that never halts
// wakes at once; one that does has to be woken by the hypervisor.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sched_param p;
    cpu_set_t s;
    memset(&p, 0, sizeof p);
    CPU_ZERO(&s);
    CPU_SET(argc > 1 ? atoi(argv[1]) : 0, &s);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(7200);
    if (sched_setaffinity(0, sizeof s, &s) || sched_setscheduler(0, SCHED_IDLE, &p)) return 1;
    for (;;) {
        __asm__ volatile("" ::: "memory");
    }
}
