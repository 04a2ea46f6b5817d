// What every test program shares: the runner, checks, threads, counters of memory and descriptors.
//
//     TEST(addr, parse_rejects_leading_zero) { CHECK_ERR(NETIO_EINVAL, netio_addr_parse(...)); }
//     TEST_MAIN("addr", T(addr, parse_rejects_leading_zero), ...)
//
// A check that fails ends its test. After each test the runner compares open descriptors and blocks
// of memory with those before it. The program's last line is "PASS n", or "FAIL n of m"; tests that
// could not run are counted and named with their reason. Exit code: 0, 1, or 77 if all were
// skipped.
//
// Arguments: --list, --backend NAME (or NETIO_TEST_BACKEND), --soak (or NETIO_TEST_SOAK), and parts
// of test names to run alone. Two further names of backends stand for the network in memory, for
// the programs whose first line says so: "memory", and "memory-rough", where bytes arrive late and
// in pieces. Their loops come from engine.h.
#ifndef NETIO_TEST_H
#define NETIO_TEST_H

#include "netio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct test_case {
    const char *name;
    void (*run)(void);
} test_case;

#define TEST(section, name) static void section##_##name(void)
// clang-format off
#define T(section, name) {#section "." #name, section##_##name}
// clang-format on
#define TEST_MAIN(section, ...)                                                                    \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        static const test_case cases[] = {__VA_ARGS__};                                            \
        return test_main(section, cases, sizeof cases / sizeof cases[0], argc, argv);              \
    }

int test_main(const char *section, const test_case *cases, size_t count, int argc, char **argv);

// --- checks: only on the thread that runs the test ---------------------------------------------

#define CHECK(cond) ((cond) ? (void)0 : test_fail(__FILE__, __LINE__, "%s", #cond))
#define CHECK_EQ(want, got)                                                                        \
    test_check_eq(__FILE__, __LINE__, #got, (long long)(want), (long long)(got))
// A netio result: want is a NETIO_E*, or a count. Prints both by name.
#define CHECK_ERR(want, got)                                                                       \
    test_check_err(__FILE__, __LINE__, #got, (ptrdiff_t)(want), (ptrdiff_t)(got))
#define CHECK_OK(got) CHECK_ERR(0, got)
#define CHECK_STR(want, got) test_check_str(__FILE__, __LINE__, #got, (want), (got))
#define CHECK_MEM(want, got, len) test_check_mem(__FILE__, __LINE__, #got, (want), (got), (len))
#define CHECK_BETWEEN(low, high, got)                                                              \
    test_check_between(__FILE__, __LINE__, #got, (long long)(low), (long long)(high),              \
                       (long long)(got))
// Ends the test without a verdict, for a tool, right or kernel feature that is not there.
#define SKIP(...) test_skip(__VA_ARGS__)

void test_fail(const char *file, int line, const char *format, ...);
void test_skip(const char *format, ...);
void test_check_eq(const char *file, int line, const char *text, long long want, long long got);
void test_check_err(const char *file, int line, const char *text, ptrdiff_t want, ptrdiff_t got);
void test_check_str(const char *file, int line, const char *text, const char *want,
                    const char *got);
void test_check_mem(const char *file, int line, const char *text, const void *want, const void *got,
                    size_t len);
void test_check_between(const char *file, int line, const char *text, long long low, long long high,
                        long long got);

// --- around the tests --------------------------------------------------------------------------

int test_backend(void);            // NETIO_BACKEND_* of --backend; AUTO if not given
bool test_in_memory(void);         // --backend memory or memory-rough; test_backend() is AUTO then
bool test_rough(void);             // --backend memory-rough
bool test_soak(void);              // --soak: take minutes
unsigned test_serial(void);        // which test this is, from 1; for state of helpers
bool test_under(const char *what); // "wine", "qemu", "valgrind", "sanitizer": where we run
uint64_t test_ms(void);            // monotonic, from a clock that is not netio's
void test_sleep_ms(int ms);        // only to be late on purpose, never to wait for something
uint64_t test_cpu_ms(void);        // user and system time of this process

typedef struct test_thread {
    void *handle;
    void (*run)(void *arg);
    void *arg;
} test_thread;

// `t` must live until join. Threads report through memory of theirs, not with CHECK.
void test_thread_start(test_thread *t, void (*run)(void *arg), void *arg);
void test_thread_join(test_thread *t);

// A number that threads share.
int test_shared_get(const int *value);
void test_shared_add(int *value, int n);

int test_descriptors(void);      // open ones of this process; 0 where it cannot be told
long test_blocks(void);          // blocks from NETIO_MALLOC that were not freed
long test_allocs(void);          // calls of NETIO_MALLOC and NETIO_REALLOC so far
long long test_bytes(void);      // in those blocks, as the heap counts them; -1 where it does not
void test_alloc_fail_at(long n); // the n-th allocation from now on fails, once; 0: none

// Operations seen by NETIO_ON_OP since the test began, by NETIO_OP_*.
long test_ops(int op);

// Deterministic bytes and numbers, for payloads that are checked at the other end.
uint32_t test_random(uint32_t *state);
void test_fill(void *buf, size_t len, uint32_t seed);

// Two connected TCP sockets over loopback; a listener on "127.0.0.1:0" with its text address.
void test_tcp_pair(netio_socket *client, netio_socket *server);
void test_listen(netio_socket *out, char text[NETIO_ADDR_TEXT], const char *address);

// A file name in a fresh directory of this process, which the runner removes at the end.
const char *test_path(const char *name);

// --- the hooks that netio_impl.c hands to the implementation -----------------------------------

void *test_malloc(size_t size);
void *test_realloc(void *ptr, size_t size);
void test_free(void *ptr);
void test_assert(const char *file, int line, const char *expr);
void test_on_op(int op, netio_socket s, ptrdiff_t result);

#endif // NETIO_TEST_H
