// Names to addresses. This program stands in for the system's resolver: netio calls
// test_getaddrinfo below, which follows a script, counts, sleeps, or asks the real one.
#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#elif !defined(_GNU_SOURCE)
#define _GNU_SOURCE // EAI_NODATA, unshare under -std=c99
#endif
#include "test.h"

#ifndef _WIN32
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <sched.h>
#include <sys/mount.h>
#endif

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

#ifdef NETIO_NO_UNIX
enum { HAS_UNIX = 0 };
#else
enum { HAS_UNIX = 1 };
#endif

// A lookup with a limit needs a thread. Tables of timeout_ms are {-1, 10000}: WAYS of them work.
#ifdef NETIO_NO_THREADS
enum { HAS_THREADS = 0, WAYS = 1 };
#else
enum { HAS_THREADS = 1, WAYS = 2 };
#endif

static void need_threads(void)
{
    if (!HAS_THREADS) SKIP("built without threads");
}

int test_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                     struct addrinfo **out);
void test_freeaddrinfo(struct addrinfo *list);

//================================================================================================
// Systems: a lock with a condition, the thread we are on
//================================================================================================

#ifdef _WIN32
static SRWLOCK lock = SRWLOCK_INIT;
static CONDITION_VARIABLE changed = CONDITION_VARIABLE_INIT;
static void locked(void) { AcquireSRWLockExclusive(&lock); }
static void unlocked(void) { ReleaseSRWLockExclusive(&lock); }
typedef size_t os_len;
static void wait_change(void) { SleepConditionVariableSRW(&changed, &lock, INFINITE, 0); }
static void tell_change(void) { WakeAllConditionVariable(&changed); }
static uint64_t this_thread(void) { return GetCurrentThreadId(); }
#else
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static void locked(void) { pthread_mutex_lock(&lock); }
static void unlocked(void) { pthread_mutex_unlock(&lock); }
typedef socklen_t os_len;
static void wait_change(void) { pthread_cond_wait(&changed, &lock); }
static void tell_change(void) { pthread_cond_broadcast(&changed); }

static uint64_t this_thread(void)
{
    pthread_t self = pthread_self();
    uint64_t id = 0;
    memcpy(&id, &self, sizeof self < sizeof id ? sizeof self : sizeof id);
    return id;
}
#endif

//================================================================================================
// The resolver in the system's place
//================================================================================================

static struct {
    bool real;           // ask the system
    long calls;          // lookups that reached us
    long lists;          // answers given and not freed yet
    long waiting;        // lookups that stand at the gate
    bool gate_open;
    int slow_ms;         // how long slow.test takes
    uint64_t thread;     // of the last call
    int family;          // asked for by the last call
    char host[600];      // of the last call
} os;

typedef struct script {
    const char *host;
    int eai;
    const char *addrs[8]; // ends at NULL
} script;

// clang-format off
static const script scripts[] = {
    {"plain.test", 0, {"192.0.2.1"}},
    {"both.test", 0, {"2001:db8::1", "192.0.2.1"}},
    {"six.test", 0, {"2001:db8::1"}},
    {"many6.test", 0, {"2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"}},
    {"many4.test", 0, {"192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"}},
    {"mixed.test", 0, {"192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2", "2001:db8::3"}},
    {"twice.test", 0, {"192.0.2.1", "192.0.2.1", "2001:db8::1", "192.0.2.1", "2001:db8::1",
                       "192.0.2.2"}},
    {"mapped.test", 0, {"::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"}},
    {"loop.test", 0, {"127.0.0.1"}},
    {"slow.test", 0, {"127.0.0.9"}},
    {"gate.test", 0, {"192.0.2.1"}},
    {"dead.test", 0, {"127.0.0.2", "127.0.0.3", "127.0.0.4"}},
    {"revived.test", 0, {"127.0.0.2", "127.0.0.1"}},
    {"hole.test", 0, {"127.0.0.5", "127.0.0.2", "127.0.0.1"}},
    {"noname.test", EAI_NONAME, {NULL}},
    {"again.test", EAI_AGAIN, {NULL}},
    {"fail.test", EAI_FAIL, {NULL}},
    {"memory.test", EAI_MEMORY, {NULL}},
    {"family.test", EAI_FAMILY, {NULL}},
    {"unknown.test", 31234, {NULL}},
#ifdef EAI_SYSTEM
    {"system.test", EAI_SYSTEM, {NULL}}, // with errno EMFILE
#endif
#ifdef EAI_NODATA
    {"nodata.test", EAI_NODATA, {NULL}},
#endif
#ifdef EAI_ADDRFAMILY
    {"addrfamily.test", EAI_ADDRFAMILY, {NULL}},
#endif
};
// clang-format on

// Append a copy of an address to the list. The whole list is one answer.
static struct addrinfo **append(struct addrinfo **end, const void *sa, size_t len, int family)
{
    struct addrinfo *node = (struct addrinfo *)calloc(1, sizeof *node + 128);
    if (!node) return end;
    node->ai_family = family;
    node->ai_socktype = SOCK_STREAM;
    node->ai_addrlen = (os_len)len;
    node->ai_addr = (struct sockaddr *)(void *)(node + 1);
    if (len) memcpy(node->ai_addr, sa, len);
    *end = node;
    return &node->ai_next;
}

static struct addrinfo **append_text(struct addrinfo **end, const char *text, int family)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    memset(&in, 0, sizeof in);
    memset(&in6, 0, sizeof in6);
    in.sin_family = AF_INET;
    in6.sin6_family = AF_INET6;
    if (family != AF_INET6 && inet_pton(AF_INET, text, &in.sin_addr) == 1)
        return append(end, &in, sizeof in, AF_INET);
    if (family != AF_INET && inet_pton(AF_INET6, text, &in6.sin6_addr) == 1)
        return append(end, &in6, sizeof in6, AF_INET6);
    return end;
}

#ifdef EAI_SYSTEM
static void set_cause(int eai)
{
    if (eai == EAI_SYSTEM) errno = EMFILE;
}
#else
static void set_cause(int eai) { (void)eai; }
#endif

// More addresses of both families than netio looks at: 40 of IPv6 first.
static struct addrinfo **append_crowd(struct addrinfo **end, int family)
{
    char text[64];
    for (int i = 1; i <= 40; i++) {
        snprintf(text, sizeof text, "2001:db8::%x", i);
        end = append_text(end, text, family);
    }
    for (int i = 1; i <= 40; i++) {
        snprintf(text, sizeof text, "192.0.2.%d", i);
        end = append_text(end, text, family);
    }
    return end;
}

// What no resolver should answer: strange families, no address, addresses cut short.
static struct addrinfo **append_odd(struct addrinfo **end)
{
    unsigned char bytes[128];
    struct sockaddr_in in;
    struct addrinfo **keep;
    memset(bytes, 0x5A, sizeof bytes);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    end = append(end, bytes, 20, 97);
    end = append(end, &in, 7, AF_INET);
    end = append(end, &in, 0, AF_INET);
    keep = end;
    end = append(end, &in, sizeof in, AF_INET);
    if (keep != end) {
        (*keep)->ai_addr = NULL;
        (*keep)->ai_addrlen = 0;
    }
    return append_text(end, "192.0.2.77", AF_UNSPEC);
}

static struct addrinfo **append_real(struct addrinfo **end, const char *host, const char *service,
                                     const struct addrinfo *hints, int *eai)
{
    struct addrinfo *list = NULL;
    *eai = getaddrinfo(host, service, hints, &list);
    if (*eai != 0) return end;
    for (struct addrinfo *i = list; i; i = i->ai_next)
        end = append(end, i->ai_addr, (size_t)i->ai_addrlen, i->ai_family);
    freeaddrinfo(list);
    return end;
}

static void count_list(const struct addrinfo *list, int n)
{
    if (!list) return;
    locked();
    os.lists += n;
    unlocked();
}

int test_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                     struct addrinfo **out)
{
    struct addrinfo *list = NULL, **end = &list;
    int family = hints ? hints->ai_family : AF_UNSPEC, eai = EAI_NONAME;
    bool real;
    int slow_ms;
    *out = NULL;
    if (!host) { // a service's number, asked for by its name: that is the system's to say
        append_real(out, host, service, hints, &eai);
        count_list(*out, 1);
        return eai;
    }
    locked();
    os.calls++;
    slow_ms = os.slow_ms;
    os.thread = this_thread();
    os.family = family;
    snprintf(os.host, sizeof os.host, "%s", host);
    real = os.real;
    if (strcmp(host, "gate.test") == 0) {
        os.waiting++;
        tell_change();
        while (!os.gate_open) wait_change();
        os.waiting--;
    }
    unlocked();
    if (real) {
        append_real(end, host, service, hints, &eai);
    } else {
        if (strcmp(host, "slow.test") == 0) test_sleep_ms(slow_ms);
        for (size_t i = 0; i < COUNT(scripts); i++) {
            if (strcmp(host, scripts[i].host) != 0) continue;
            eai = scripts[i].eai;
            for (int k = 0; k < 8 && scripts[i].addrs[k]; k++)
                end = append_text(end, scripts[i].addrs[k], family);
            if (eai == 0 && !list) eai = EAI_NONAME;
        }
        if (strcmp(host, "crowd.test") == 0) append_crowd(end, family), eai = 0;
        if (strcmp(host, "odd.test") == 0) append_odd(end), eai = 0;
        if (strcmp(host, "empty.test") == 0) eai = 0; // success, and nothing
        if (strcmp(host, "rude.test") == 0) {         // whatever family is asked for
            end = append_text(end, "192.0.2.1", AF_UNSPEC);
            append_text(end, "2001:db8::1", AF_UNSPEC);
            eai = 0;
        }
    }
    count_list(list, 1);
    *out = list;
    set_cause(eai);
    return eai;
}

void test_freeaddrinfo(struct addrinfo *list)
{
    count_list(list, -1);
    while (list) {
        struct addrinfo *next = list->ai_next;
        free(list);
        list = next;
    }
}

//================================================================================================
// Helpers
//================================================================================================

static long calls(void)
{
    long n;
    locked();
    n = os.calls;
    unlocked();
    return n;
}

static long lists(void)
{
    long n;
    locked();
    n = os.lists;
    unlocked();
    return n;
}

static void ask_real(bool real)
{
    locked();
    os.real = real;
    unlocked();
}

static void set_slow(int ms)
{
    locked();
    os.slow_ms = ms;
    unlocked();
}

// Lets the lookups at the gate go, also those still to come.
static void open_gate(bool open)
{
    locked();
    os.gate_open = open;
    tell_change();
    unlocked();
}

// A detached thread gives no sign when it has ended: look until what it held is free.
static void wait_freed(long blocks)
{
    uint64_t limit = test_ms() + 10000;
    while (test_blocks() != blocks || lists() != 0) {
        CHECK(test_ms() < limit);
        test_sleep_ms(1);
    }
}

// Resolve and compare with the wanted addresses, separated by blanks.
static void check_resolve(const char *host_port, const netio_resolve_opts *opts, int timeout_ms,
                          const char *want)
{
    netio_addr out[NETIO_RESOLVE_MAX];
    char got[NETIO_RESOLVE_MAX * NETIO_ADDR_TEXT];
    size_t used = 0;
    ptrdiff_t n = netio_resolve(host_port, out, NETIO_RESOLVE_MAX, opts, timeout_ms);
    got[0] = 0;
    if (n < 0) snprintf(got, sizeof got, "%s", netio_errname(n));
    for (ptrdiff_t i = 0; i < n; i++) {
        char text[NETIO_ADDR_TEXT];
        CHECK(netio_addr_format(&out[i], text, sizeof text) > 0);
        used += (size_t)snprintf(got + used, sizeof got - used, "%s%s", i ? " " : "", text);
    }
    if (strcmp(want, got) != 0)
        test_fail(__FILE__, __LINE__, "%s (%d ms): want \"%s\", got \"%s\"", host_port, timeout_ms,
                  want, got);
}

// The same at once and with a bounded time: nothing to look up, so no thread is needed.
static void check_literal(const char *host_port, const netio_resolve_opts *opts, const char *want)
{
    check_resolve(host_port, opts, -1, want);
    check_resolve(host_port, opts, 10000, want);
}

// Once on this thread and once with a bounded time.
static void check_both(const char *host_port, const netio_resolve_opts *opts, const char *want)
{
    check_resolve(host_port, opts, -1, want);
    check_resolve(host_port, opts, 10000, HAS_THREADS ? want : "ENOTSUP");
}

//================================================================================================
// Literals
//================================================================================================

TEST(resolve, literals_never_reach_the_resolver)
{
    static const char *const rows[][2] = {
        {"127.0.0.1:80", "127.0.0.1:80"},
        {"[::1]:80", "[::1]:80"},
        {"[2001:DB8:0::1]:443", "[2001:db8::1]:443"},
        {":8080", "[::]:8080"},
        {"*:8080", "[::]:8080"},
        {"255.255.255.255:65535", "255.255.255.255:65535"},
        {"[fe80::1%4000000000]:9", "[fe80::1%4000000000]:9"},
        {"unix:/run/app.sock", "unix:/run/app.sock"},
    };
    static const int times[] = {-1, 0, 1, 1000};
    long before = calls(), allocs = test_allocs();
    for (size_t i = 0; i < COUNT(rows); i++)
        for (size_t t = 0; t < COUNT(times); t++)
            check_resolve(rows[i][0], NULL, times[t],
                          rows[i][0][0] == 'u' && !HAS_UNIX ? "ENOTSUP" : rows[i][1]);
    CHECK_EQ(before, calls());
    CHECK_EQ(allocs, test_allocs()); // nor do they need a thread
}

TEST(resolve, literals_take_service_names)
{
    long before = calls();
    if (netio_service_port("http", "tcp") != 80) SKIP("no table of services on this system");
    check_literal("127.0.0.1:http", NULL, "127.0.0.1:80");
    check_literal("[::1]:http", NULL, "[::1]:80");
    check_literal("*:http", NULL, "[::]:80");
    check_literal(":http", NULL, "[::]:80");
    check_literal("127.0.0.1:no-such-service", NULL, "ENOENT");
    CHECK_EQ(before, calls());
}

TEST(resolve, half_literals_are_refused_before_the_resolver)
{
    // The C library takes these (inet_aton): octal, hexadecimal, one, two or three parts.
    static const char *const rows[] = {
        "1.2.3:80",       "1.2:80",          "1:80",          "127.1:80",       "010.0.0.1:80",
        "0x7f.1:80",      "0x7f.0.0.1:80",   "0x7f000001:80", "2130706433:80",  "1.2.3.4.5:80",
        "256.1.1.1:80",   "1.2.3.256:80",    "1.2.3.4567:80", "01.02.03.04:80", "1.2.3.0x4:80",
        "[1.2.3.4]:80",   "[::1:80",         "::1:80",        "[1::2::3]:80",   "[12345::]:80",
    };
    static const int times[] = {-1, 0, 1000};
    netio_addr out[2], untouched[2];
    long before = calls();
    memset(out, 0xC7, sizeof out);
    memset(untouched, 0xC7, sizeof untouched);
    for (size_t i = 0; i < COUNT(rows); i++)
        for (size_t t = 0; t < COUNT(times); t++) {
            ptrdiff_t n = netio_resolve(rows[i], out, 2, NULL, times[t]);
            if (n != NETIO_EINVAL)
                test_fail(__FILE__, __LINE__, "%s: %s", rows[i], netio_errname(n));
            CHECK_MEM(untouched, out, sizeof out);
        }
    CHECK_EQ(before, calls());
}

TEST(resolve, text_without_host_and_port_is_refused)
{
    static const char *const rows[] = {
        "",      ":",      "plain.test", "plain.test:",      "*",         "*:",
        "[::1]", "[]:80",  "unix:",      "127.0.0.1",        "a:b:c",     "plain.test:99999",
        ":70000", "plain.test:-1",       "plain.test:65536", "127.0.0.1:65536",
    };
    netio_addr out;
    long before = calls();
    for (size_t i = 0; i < COUNT(rows); i++) {
        ptrdiff_t n = netio_resolve(rows[i], &out, 1, NULL, -1);
        // "-1" may be read as a number out of range or as a service that does not exist.
        if (n != NETIO_EINVAL && !(strchr(rows[i], '-') && n == NETIO_ENOENT) &&
            !(rows[i][0] == 'u' && !HAS_UNIX && n == NETIO_ENOTSUP))
            test_fail(__FILE__, __LINE__, "\"%s\": %s", rows[i], netio_errname(n));
    }
    CHECK_EQ(before, calls());
}

TEST(resolve, numbers_work_while_the_resolver_is_dead)
{
    netio_socket listener, s;
    char text[NETIO_ADDR_TEXT];
    long before = calls();
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_connect(&s, text, NULL, 5000));
    CHECK_EQ(before, calls());
    CHECK_OK(netio_close(&s));
    CHECK_OK(netio_close(&listener));
}

//================================================================================================
// Names
//================================================================================================

TEST(resolve, names_become_addresses)
{
    check_both("plain.test:80", NULL, "192.0.2.1:80");
    check_both("both.test:443", NULL, "[2001:db8::1]:443 192.0.2.1:443");
    check_both("six.test:1", NULL, "[2001:db8::1]:1");
    locked();
    CHECK_STR("six.test", os.host);
    unlocked();
    wait_freed(test_blocks());
}

TEST(resolve, names_take_service_names)
{
    long blocks = test_blocks(), before;
    if (netio_service_port("http", "tcp") != 80) SKIP("no table of services on this system");
    check_both("plain.test:http", NULL, "192.0.2.1:80");
    before = calls();
    check_literal("plain.test:no-such-service", NULL, "ENOENT");
    CHECK_EQ(before, calls());
    wait_freed(blocks);
}

TEST(resolve, no_limit_is_on_this_thread_and_needs_no_memory)
{
    long allocs = test_allocs();
    check_resolve("plain.test:80", NULL, -1, "192.0.2.1:80");
    CHECK_EQ(this_thread(), os.thread);
    CHECK_EQ(allocs, test_allocs());
    CHECK_EQ(0, lists());
}

TEST(resolve, a_limit_is_on_a_thread_of_its_own)
{
    long blocks = test_blocks();
    need_threads();
    check_resolve("plain.test:80", NULL, 10000, "192.0.2.1:80");
    wait_freed(blocks);
    CHECK(this_thread() != os.thread);
}

TEST(resolve, no_time_is_eagain_without_a_call)
{
    long before = calls();
    check_resolve("plain.test:80", NULL, 0, "EAGAIN");
    CHECK_EQ(before, calls());
}

TEST(resolve, resolver_codes_become_netio_errors)
{
    static const struct {
        const char *name, *want;
    } rows[] = {
        {"noname.test:80", "EAI_NONAME"},
        {"again.test:80", "EAI_AGAIN"},
        {"memory.test:80", "ENOMEM"},
        {"empty.test:80", "EAI_NONAME"},
#if defined(EAI_SYSTEM)
        {"system.test:80", "EMFILE"},
#endif
#if defined(EAI_NODATA)
        {"nodata.test:80", "EAI_NONAME"},
#endif
#if defined(EAI_ADDRFAMILY)
        {"addrfamily.test:80", "EAI_NONAME"},
#endif
    };
    static const char *const others[] = {"fail.test:80", "family.test:80", "unknown.test:80"};
    long blocks = test_blocks();
    netio_addr out, untouched;
    memset(&out, 0xC7, sizeof out);
    untouched = out;
    for (size_t i = 0; i < COUNT(rows); i++) check_both(rows[i].name, NULL, rows[i].want);
    for (size_t i = 0; i < COUNT(others); i++) { // no name of their own: any error that has one
        ptrdiff_t here = netio_resolve(others[i], &out, 1, NULL, -1);
        CHECK(here < 0 && strcmp(netio_errname(here), "EUNKNOWN") != 0);
        if (HAS_THREADS) CHECK_ERR(here, netio_resolve(others[i], &out, 1, NULL, 10000));
    }
    CHECK_MEM(&untouched, &out, sizeof out);
    wait_freed(blocks);
}

TEST(resolve, families_alternate_from_the_first)
{
    long blocks = test_blocks();
    check_both("many6.test:1", NULL,
               "[2001:db8::1]:1 192.0.2.1:1 [2001:db8::2]:1 192.0.2.2:1 [2001:db8::3]:1");
    check_both("many4.test:1", NULL, "192.0.2.1:1 [2001:db8::1]:1 192.0.2.2:1 192.0.2.3:1");
    check_both("mixed.test:1", NULL,
               "192.0.2.1:1 [2001:db8::1]:1 192.0.2.2:1 [2001:db8::2]:1 [2001:db8::3]:1");
    wait_freed(blocks);
}

TEST(resolve, repetitions_are_left_out)
{
    long blocks = test_blocks();
    check_both("twice.test:1", NULL, "192.0.2.1:1 [2001:db8::1]:1 192.0.2.2:1");
    check_both("mapped.test:1", NULL, "192.0.2.1:1 192.0.2.2:1"); // and mapped ones unmapped
    wait_freed(blocks);
}

TEST(resolve, a_family_filter_holds)
{
    netio_resolve_opts v4 = {0}, v6 = {0};
    long blocks = test_blocks();
    v4.family = NETIO_IPV4;
    v6.family = NETIO_IPV6;
    check_both("mixed.test:1", &v4, "192.0.2.1:1 192.0.2.2:1");
    check_both("mixed.test:1", &v6, "[2001:db8::1]:1 [2001:db8::2]:1 [2001:db8::3]:1");
    check_both("plain.test:1", &v6, "EAI_NONAME");
    check_both("six.test:1", &v4, "EAI_NONAME");
    check_both("rude.test:1", &v4, "192.0.2.1:1"); // also if the resolver does not keep to it
    check_both("rude.test:1", &v6, "[2001:db8::1]:1");
    wait_freed(blocks);
}

TEST(resolve, a_wrong_family_is_refused)
{
    static const int families[] = {1, 2, 5, 10, -4, 46};
    netio_addr out;
    long before = calls();
    for (size_t i = 0; i < COUNT(families); i++) {
        netio_resolve_opts opts = {0};
        opts.family = families[i];
        CHECK_ERR(NETIO_EINVAL, netio_resolve("plain.test:80", &out, 1, &opts, -1));
        CHECK_ERR(NETIO_EINVAL, netio_resolve("plain.test:80", &out, 1, &opts, 1000));
    }
    CHECK_EQ(before, calls());
}

TEST(resolve, at_most_the_documented_number_is_given)
{
    enum { ROOM = NETIO_RESOLVE_MAX + 8 };
    netio_addr out[ROOM], untouched;
    static const int times[] = {-1, 10000};
    long blocks = test_blocks();
    memset(&untouched, 0xC7, sizeof untouched);
    for (size_t t = 0; t < WAYS; t++) {
        for (size_t cap = 1; cap <= ROOM; cap += cap == 3 ? NETIO_RESOLVE_MAX - 4 : 1) {
            size_t want = cap < NETIO_RESOLVE_MAX ? cap : NETIO_RESOLVE_MAX;
            memset(out, 0xC7, sizeof out);
            CHECK_EQ(want, netio_resolve("crowd.test:1", out, cap, NULL, times[t]));
            for (size_t i = want; i < ROOM; i++) CHECK_MEM(&untouched, &out[i], sizeof untouched);
            for (size_t i = 0; i < want; i++)
                for (size_t k = 0; k < i; k++) CHECK(!netio_addr_equal(&out[i], &out[k]));
            // 40 of one family in front must not hide the other one.
            if (want > 1) CHECK_EQ(NETIO_IPV4, netio_addr_family(&out[1]));
            CHECK_EQ(NETIO_IPV6, netio_addr_family(&out[0]));
        }
    }
    for (size_t i = 0; i < 2; i++) { // and one family alone may have all the room
        netio_resolve_opts opts = {0};
        opts.family = i ? NETIO_IPV6 : NETIO_IPV4;
        CHECK_EQ(NETIO_RESOLVE_MAX, netio_resolve("crowd.test:1", out, ROOM, &opts, -1));
        for (size_t k = 0; k < NETIO_RESOLVE_MAX; k++)
            CHECK_EQ(opts.family, netio_addr_family(&out[k]));
    }
    wait_freed(blocks);
}

TEST(resolve, strange_answers_are_skipped)
{
    long blocks = test_blocks();
    check_both("odd.test:5", NULL, "192.0.2.77:5");
    wait_freed(blocks);
}

// What reaches the resolver are names: letters, digits, '-', '_', bytes above 127, in labels.
TEST(resolve, only_names_reach_the_resolver)
{
    static const char *const names[] = {
        "a",         "z.test",      "A.TEST",       "Z",         "x-y.test",   "_srv._tcp.test",
        "9.test",    "1.2.3.test",  "0x7f.test",    "a1",        "1a",         "0xg",
        "a.0xx",     "7f",          "b\xc3\xbc.test", "\x80.test", "root.test.", "mno.PQR.st",
        "0y7f",      "a.0xfg",
    };
    static const char *const others[] = {
        "a b.test",   " a.test", "a.test ", "a..test", ".a.test", ".",         "..",
        "a.test..",   "a/b",     "a@b",     "a,b",     "a;b",     "a%b",       "a*b",
        "a?b",        "a#b",     "a`b",     "a{b",     "a[b",     "a]b",       "a^b",
        "a'b",        "a\"b",    "a\\b",    "a\tb",    "a\nb",    "a\x7f",     "a\x01",
        "$(a)",       "a&b",     "a<b",     "a+b",     "a=b",     "a.1",       "a.0x1F",
        "a.0X",       "0.0.0.0x", "a.1.",   "[a.test]", "[a]",    "[1]",       "**",
    };
    char text[300];
    netio_addr out;
    for (size_t i = 0; i < COUNT(names); i++) {
        long before = calls();
        ptrdiff_t n;
        snprintf(text, sizeof text, "%s:80", names[i]);
        n = netio_resolve(text, &out, 1, NULL, -1);
        if (n != NETIO_EAI_NONAME || calls() != before + 1)
            test_fail(__FILE__, __LINE__, "\"%s\": %s", names[i], netio_errname(n));
        CHECK_STR(names[i], os.host);
    }
    for (size_t i = 0; i < COUNT(others); i++) {
        long before = calls();
        ptrdiff_t n;
        snprintf(text, sizeof text, "%s:80", others[i]);
        n = netio_resolve(text, &out, 1, NULL, -1);
        if (n != NETIO_EINVAL || calls() != before)
            test_fail(__FILE__, __LINE__, "\"%s\": %s", others[i], netio_errname(n));
    }
    for (int len = 62; len <= 65; len++) { // a label has at most 63 characters, wherever it stands
        static const char *const around[][2] = {{"", ""}, {"a.", ""}, {"", ".b"}, {"a.", ".b."}};
        for (size_t i = 0; i < COUNT(around); i++) {
            char label[80];
            memset(label, 'x', sizeof label);
            label[len] = 0;
            snprintf(text, sizeof text, "%s%s%s:80", around[i][0], label, around[i][1]);
            CHECK_ERR(len <= 63 ? NETIO_EAI_NONAME : NETIO_EINVAL,
                      netio_resolve(text, &out, 1, NULL, -1));
        }
    }
    CHECK_ERR(NETIO_ENODEV, netio_resolve("[fe80::1%nosuchif]:80", &out, 1, NULL, -1));
}

TEST(resolve, long_names_arrive_whole_or_not_at_all)
{
    char text[2000];
    netio_addr out;
    long blocks = test_blocks();
    for (size_t len = 1; len < 1500; len += len == 10 ? 240 : len == 260 ? 700 : 1) {
        static const int times[] = {-1, 10000};
        for (size_t t = 0; t < WAYS; t++) {
            long before = calls();
            ptrdiff_t n;
            memset(text, 'a', len);
            for (size_t i = 30; i < len; i += 31) text[i] = '.';
            memcpy(text + len, ":80", 4);
            n = netio_resolve(text, &out, 1, NULL, times[t]);
            if (calls() == before) {
                CHECK(len > 253); // RFC 1035 section 2.3.4 leaves 253 characters
                CHECK(n == NETIO_EINVAL || n == NETIO_EAI_NONAME || n == NETIO_ENAMETOOLONG);
            } else {
                CHECK_ERR(NETIO_EAI_NONAME, n);
                locked();
                n = (ptrdiff_t)strlen(os.host);
                unlocked();
                CHECK_EQ(len < sizeof os.host ? len : sizeof os.host - 1, n);
            }
        }
    }
    wait_freed(blocks);
}

//================================================================================================
// Bounded time
//================================================================================================

TEST(resolve, a_stuck_resolver_does_not_hold_the_caller)
{
    netio_addr out, untouched;
    long blocks = test_blocks();
    uint64_t start, took;
    need_threads();
    memset(&out, 0xC7, sizeof out);
    untouched = out;
    set_slow(2000);
    start = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_resolve("slow.test:80", &out, 1, NULL, 100));
    took = test_ms() - start;
    CHECK_BETWEEN(99, 1900, took); // another clock: its millisecond may have begun earlier
    check_resolve("plain.test:80", NULL, 1000, "192.0.2.1:80"); // others are not held up
    wait_freed(blocks); // the late answer is freed by the thread that stayed behind
    CHECK(test_ms() - start >= 1900);
    CHECK_MEM(&untouched, &out, sizeof out); // and does not reach the caller's memory
}

TEST(resolve, an_answer_at_the_deadline_is_taken_or_freed)
{
    long blocks = test_blocks();
    need_threads();
    set_slow(3);
    for (int i = 0; i < 100; i++) {
        netio_addr out;
        ptrdiff_t n;
        memset(&out, 0xC7, sizeof out);
        n = netio_resolve("slow.test:80", &out, 1, NULL, 2 + i % 3);
        CHECK(n == 1 || n == NETIO_ETIMEDOUT);
        if (n == 1) CHECK_EQ(80, netio_addr_port(&out));
    }
    wait_freed(blocks);
}

TEST(resolve, at_most_64_lookups_hang)
{
    netio_addr out;
    long blocks = test_blocks(), before = calls();
    uint64_t start, limit;
    ptrdiff_t n;
    need_threads();
    open_gate(false);
    for (int i = 0; i < 64; i++)
        CHECK_ERR(NETIO_ETIMEDOUT, netio_resolve("gate.test:80", &out, 1, NULL, 1));
    start = test_ms();
    for (int i = 0; i < 10; i++)
        CHECK_ERR(NETIO_EBUSY, netio_resolve("gate.test:80", &out, 1, NULL, 10000));
    CHECK_ERR(NETIO_EBUSY, netio_resolve("plain.test:80", &out, 1, NULL, 10000));
    CHECK(test_ms() - start < 5000);
    check_resolve("plain.test:80", NULL, -1, "192.0.2.1:80"); // this thread is free
    check_resolve("127.0.0.1:80", NULL, 10, "127.0.0.1:80");
    open_gate(true);
    wait_freed(blocks);
    CHECK_EQ(before + 65, calls());
    limit = test_ms() + 10000; // a thread counts until its very end
    while ((n = netio_resolve("plain.test:80", &out, 1, NULL, 10000)) == NETIO_EBUSY)
        CHECK(test_ms() < limit);
    CHECK_ERR(1, n);
    wait_freed(blocks);
}

TEST(resolve, allocations_may_fail_at_every_step)
{
    long blocks = test_blocks(), used;
    netio_addr out, untouched;
    need_threads();
    used = test_allocs();
    check_resolve("plain.test:80", NULL, 10000, "192.0.2.1:80");
    wait_freed(blocks);
    used = test_allocs() - used;
    CHECK(used >= 1); // else there is nothing to fail
    memset(&out, 0xC7, sizeof out);
    untouched = out;
    for (long n = 1; n <= used; n++) {
        test_alloc_fail_at(n);
        CHECK_ERR(NETIO_ENOMEM, netio_resolve("plain.test:80", &out, 1, NULL, 10000));
        test_alloc_fail_at(0);
        CHECK_MEM(&untouched, &out, sizeof out);
        wait_freed(blocks);
        check_resolve("plain.test:80", NULL, 10000, "192.0.2.1:80");
        wait_freed(blocks);
    }
    test_alloc_fail_at(1); // a lookup on this thread, and a literal, need none
    check_resolve("plain.test:80", NULL, -1, "192.0.2.1:80");
    check_resolve("127.0.0.1:80", NULL, 1000, "127.0.0.1:80");
    test_alloc_fail_at(0);
    for (int i = 0; i < 100; i++) { // refused lookups are no lookups that hang
        test_alloc_fail_at(1);
        CHECK_ERR(NETIO_ENOMEM, netio_resolve("plain.test:80", &out, 1, NULL, 10000));
    }
    test_alloc_fail_at(0);
    check_resolve("plain.test:80", NULL, 10000, "192.0.2.1:80");
    wait_freed(blocks);
}

typedef struct asker {
    test_thread thread;
    int wrong;
} asker;

static void ask_often(void *arg)
{
    static const int times[] = {-1, 10000};
    asker *me = (asker *)arg;
    for (int i = 0; i < 50; i++) {
        netio_addr out[4];
        ptrdiff_t n = netio_resolve("both.test:7", out, 4, NULL, times[i % WAYS]);
        if (n != 2 || netio_addr_port(&out[0]) != 7 || netio_addr_family(&out[1]) != NETIO_IPV4)
            me->wrong++;
    }
}

TEST(resolve, threads_may_ask_at_once)
{
    asker a[8];
    long blocks = test_blocks();
    memset(a, 0, sizeof a);
    for (size_t i = 0; i < COUNT(a); i++) test_thread_start(&a[i].thread, ask_often, &a[i]);
    for (size_t i = 0; i < COUNT(a); i++) test_thread_join(&a[i].thread);
    for (size_t i = 0; i < COUNT(a); i++) CHECK_EQ(0, a[i].wrong);
    wait_freed(blocks);
}

//================================================================================================
// A resolver of the user's
//================================================================================================

typedef struct own_resolver {
    const char *addrs[6]; // ends at NULL
    ptrdiff_t result;     // instead of the count, if not 0
    bool at_gate;         // wait there before answering
    int calls, ended;
    uint64_t thread;
    char host[64];
    uint16_t port;
    size_t cap;
} own_resolver;

static ptrdiff_t own_resolve(void *user, const char *host, uint16_t port, netio_addr *out,
                             size_t cap)
{
    own_resolver *me = (own_resolver *)user;
    size_t n = 0;
    locked();
    me->calls++;
    me->thread = this_thread();
    me->port = port;
    me->cap = cap;
    snprintf(me->host, sizeof me->host, "%s", host);
    while (me->at_gate && !os.gate_open) wait_change();
    unlocked();
    for (; n < cap && n < 6 && me->addrs[n]; n++)
        if (netio_addr_parse(&out[n], me->addrs[n], strlen(me->addrs[n])) < 0) break;
    locked();
    me->ended++;
    unlocked();
    return me->result ? me->result : (ptrdiff_t)n;
}

TEST(resolve, own_resolver_takes_the_systems_place)
{
    own_resolver own = {{"192.0.2.9:80", "[2001:db8::9]:80"}, 0, false, 0, 0, 0, "", 0, 0};
    netio_resolve_opts opts = {0};
    long before = calls(), blocks = test_blocks();
    opts.resolver = own_resolve;
    opts.resolver_user = &own;
    check_resolve("any.name:80", &opts, -1, "192.0.2.9:80 [2001:db8::9]:80");
    CHECK_EQ(1, own.calls);
    CHECK_EQ(this_thread(), own.thread);
    CHECK_STR("any.name", own.host);
    CHECK_EQ(80, own.port);
    CHECK_BETWEEN(2, NETIO_RESOLVE_MAX, own.cap);
    check_resolve("any.name:80", &opts, 0, "EAGAIN");
    check_literal("127.0.0.1:80", &opts, "127.0.0.1:80"); // literals do not reach it either
    check_literal("1.2.3:80", &opts, "EINVAL");
    CHECK_EQ(1, own.calls);
    check_both("any.name:80", &opts, "192.0.2.9:80 [2001:db8::9]:80");
    wait_freed(blocks);
    CHECK_EQ(1 + WAYS, own.calls);
    CHECK_EQ(HAS_THREADS, own.thread != this_thread());
    CHECK_EQ(before, calls()); // nor does anything reach the system's
}

TEST(resolve, own_resolver_answers_are_put_in_order)
{
    own_resolver own = {{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.1:1", "[::ffff:192.0.2.2]:1",
                         "[2001:db8::1]:1"}, 0, false, 0, 0, 0, "", 0, 0};
    netio_resolve_opts opts = {0};
    long blocks = test_blocks();
    opts.resolver = own_resolve;
    opts.resolver_user = &own;
    check_both("any.name:1", &opts, "192.0.2.1:1 [2001:db8::1]:1 192.0.2.2:1");
    opts.family = NETIO_IPV6;
    check_both("any.name:1", &opts, "[2001:db8::1]:1");
    wait_freed(blocks);
}

TEST(resolve, own_resolver_errors_and_lies_are_contained)
{
    own_resolver own = {{NULL}, 0, false, 0, 0, 0, "", 0, 0};
    netio_resolve_opts opts = {0};
    netio_addr out[NETIO_RESOLVE_MAX + 1], untouched;
    static const ptrdiff_t lies[] = {2, NETIO_RESOLVE_MAX, NETIO_RESOLVE_MAX + 1, PTRDIFF_MAX};
    long blocks = test_blocks();
    opts.resolver = own_resolve;
    opts.resolver_user = &own;
    check_both("any.name:1", &opts, "EAI_NONAME"); // none found
    own.result = NETIO_EAI_AGAIN;
    check_both("any.name:1", &opts, "EAI_AGAIN");
    own.result = NETIO_ETIMEDOUT;
    check_both("any.name:1", &opts, "ETIMEDOUT");
    own.addrs[0] = "192.0.2.1:1";
    memset(&untouched, 0xC7, sizeof untouched);
    for (size_t i = 0; i < COUNT(lies); i++) { // more than it filled, more than there was room for
        ptrdiff_t n;
        memset(out, 0xC7, sizeof out);
        own.result = lies[i];
        n = netio_resolve("any.name:1", out, COUNT(out), &opts, -1);
        CHECK(n < 0 || n == 1);
        CHECK_MEM(&untouched, &out[1], sizeof untouched);
        n = netio_resolve("any.name:1", out, COUNT(out), &opts, HAS_THREADS ? 10000 : -1);
        CHECK(n < 0 || n == 1);
        CHECK_MEM(&untouched, &out[1], sizeof untouched);
    }
    wait_freed(blocks);
}

TEST(resolve, own_resolver_may_outlive_the_call)
{
    static own_resolver own; // lives as long as the thread that stays behind may need it
    netio_resolve_opts opts = {0};
    netio_addr out;
    long blocks = test_blocks();
    uint64_t start = test_ms();
    need_threads();
    memset(&own, 0, sizeof own);
    own.addrs[0] = "192.0.2.1:1";
    own.at_gate = true;
    open_gate(false);
    opts.resolver = own_resolve;
    opts.resolver_user = &own;
    CHECK_ERR(NETIO_ETIMEDOUT, netio_resolve("any.name:1", &out, 1, &opts, 30));
    CHECK_BETWEEN(29, 5000, test_ms() - start);
    CHECK(test_blocks() > blocks); // the thread still has what it works on
    open_gate(true);
    wait_freed(blocks);
    locked();
    CHECK_EQ(own.calls, own.ended);
    unlocked();
}

//================================================================================================
// Connecting by name
//================================================================================================

static void port_of(const char *text, const char *host, char out[64])
{
    snprintf(out, 64, "%s:%s", host, strrchr(text, ':') + 1);
}

TEST(resolve, connect_tries_addresses_until_one_answers)
{
    netio_socket listener, s, peer;
    char text[NETIO_ADDR_TEXT], name[64];
    netio_addr a;
    long blocks = test_blocks();
    static const int times[] = {-1, 10000};
    test_listen(&listener, text, "127.0.0.1:0"); // nobody listens on 127.0.0.2
    port_of(text, "revived.test", name);
    for (size_t i = 0; i < WAYS; i++) {
        CHECK_OK(netio_connect(&s, name, NULL, times[i]));
        CHECK_OK(netio_peer_addr(s, &a));
        CHECK(netio_addr_format(&a, name, sizeof name) > 0);
        CHECK_STR(text, name);
        port_of(text, "revived.test", name);
        CHECK_OK(netio_accept(&peer, listener, NULL, 5000));
        CHECK_OK(netio_close(&peer));
        CHECK_OK(netio_close(&s));
    }
    CHECK_OK(netio_close(&listener));
    wait_freed(blocks);
}

TEST(resolve, connect_reports_every_attempt)
{
    netio_socket listener, s = NETIO_INVALID_SOCKET;
    char text[NETIO_ADDR_TEXT], name[64];
    netio_error e[6];
    netio_socket_opts opts = {0};
    long blocks = test_blocks();
    test_listen(&listener, text, "127.0.0.1:0");
    port_of(text, "dead.test", name);
    memset(e, 0xC7, sizeof e);
    opts.errors = e;
    opts.error_cap = COUNT(e);
    opts.stagger_ms = 10;
    CHECK_ERR(NETIO_ECONNREFUSED, netio_connect(&s, name, &opts, HAS_THREADS ? 20000 : -1));
    CHECK(s == NETIO_INVALID_SOCKET);
    CHECK_ERR(NETIO_ECONNREFUSED, e[0].err);
    for (size_t i = 1; i <= 3; i++) { // one for each of its three addresses, in order
        char host[NETIO_ADDR_TEXT], want[NETIO_ADDR_TEXT];
        CHECK_ERR(NETIO_ECONNREFUSED, e[i].err);
        CHECK_EQ(NETIO_STAGE_CONNECT, e[i].stage);
        CHECK(e[i].os_code != 0);
        CHECK(netio_addr_format_host(&e[i].addr, host, sizeof host) > 0);
        snprintf(want, sizeof want, "127.0.0.%d", (int)i + 1);
        CHECK_STR(want, host);
    }
    for (size_t i = 4; i < COUNT(e); i++) CHECK(e[i].err == 0 && e[i].text[0] == 0);

    port_of(text, "noname.test", name);
    CHECK_ERR(NETIO_EAI_NONAME, netio_connect(&s, name, &opts, HAS_THREADS ? 20000 : -1));
    CHECK_ERR(NETIO_EAI_NONAME, e[0].err);
    CHECK_EQ(NETIO_STAGE_RESOLVE, e[0].stage);
    CHECK(e[0].text[0] != 0);
    port_of(text, "again.test", name);
    CHECK_ERR(NETIO_EAI_AGAIN, netio_connect(&s, name, NULL, -1));
    CHECK_OK(netio_close(&listener));
    wait_freed(blocks);
}

TEST(resolve, connect_shares_one_deadline_with_the_lookup)
{
    netio_socket s = NETIO_INVALID_SOCKET;
    long blocks = test_blocks();
    uint64_t start;
    need_threads();
    open_gate(false);
    start = test_ms();
    CHECK_ERR(NETIO_ETIMEDOUT, netio_connect(&s, "gate.test:80", NULL, 50));
    open_gate(true);
    CHECK_BETWEEN(49, 5000, test_ms() - start);
    CHECK(s == NETIO_INVALID_SOCKET);
    wait_freed(blocks);
}

#ifdef __linux__
TEST(resolve, connect_races_past_a_black_hole)
{
    enum { FILL = 8 };
    netio_socket hole, listener, fill[FILL], s;
    netio_socket_opts opts = {0};
    char text[NETIO_ADDR_TEXT], name[64];
    netio_addr a;
    long blocks = test_blocks();
    int fds;
    uint64_t start;
    test_listen(&listener, text, "127.0.0.1:0");
    port_of(text, "127.0.0.5", name);
    opts.backlog = 1;
    CHECK_OK(netio_listen(&hole, name, &opts)); // nobody accepts: once it is full, SYNs vanish
    CHECK_OK(netio_addr_parse(&a, name, strlen(name)));
    for (int i = 0; i < FILL; i++) {
        int err = netio_connect_start(&fill[i], &a, NULL);
        CHECK(err == 0 || err == NETIO_EINPROGRESS);
    }
    CHECK_ERR(NETIO_ETIMEDOUT, netio_connect(&s, name, NULL, 100)); // it does hang
    fds = test_descriptors();
    port_of(text, "hole.test", name);
    opts.backlog = 0;
    opts.stagger_ms = 50;
    start = test_ms();
    CHECK_OK(netio_connect(&s, name, &opts, HAS_THREADS ? 10000 : -1));
    CHECK(test_ms() - start < 5000); // nothing waits for the hole
    CHECK_OK(netio_peer_addr(s, &a));
    CHECK(netio_addr_format(&a, name, sizeof name) > 0);
    CHECK_STR(text, name);
    CHECK_EQ(fds + 1, test_descriptors()); // the losers are closed
    CHECK_OK(netio_close(&s));
    for (int i = 0; i < FILL; i++) CHECK_OK(netio_close(&fill[i]));
    CHECK_OK(netio_close(&hole));
    CHECK_OK(netio_close(&listener));
    wait_freed(blocks);
}
#else
TEST(resolve, connect_races_past_a_black_hole) { SKIP("a full backlog hangs so on Linux only"); }
#endif

//================================================================================================
// The system's own resolver
//================================================================================================

TEST(resolve, localhost_is_this_machine)
{
    static const int times[] = {-1, 10000}, families[] = {0, NETIO_IPV4, NETIO_IPV6};
    long blocks = test_blocks();
    ask_real(true);
    for (size_t t = 0; t < WAYS; t++)
        for (size_t f = 0; f < 3; f++) {
            netio_resolve_opts opts = {0};
            netio_addr out[8];
            ptrdiff_t n;
            opts.family = families[f];
            n = netio_resolve("localhost:443", out, COUNT(out), &opts, times[t]);
            if (n == NETIO_EAI_NONAME && families[f] == NETIO_IPV6) continue; // not everywhere
            if (n < 1) ask_real(false);
            CHECK(n >= 1);
            for (ptrdiff_t i = 0; i < n; i++) {
                CHECK_EQ(443, netio_addr_port(&out[i]));
                CHECK(netio_addr_class(&out[i]) & NETIO_ADDR_LOOPBACK);
                if (families[f]) CHECK_EQ(families[f], netio_addr_family(&out[i]));
                for (ptrdiff_t k = 0; k < i; k++) CHECK(!netio_addr_equal(&out[i], &out[k]));
            }
        }
    wait_freed(blocks);
    ask_real(false);
}

TEST(resolve, first_address_of_a_name_needs_room_for_one)
{
    netio_addr one;
    ask_real(true);
    CHECK_ERR(1, netio_resolve("localhost:443", &one, 1, NULL, -1));
    ask_real(false);
    CHECK_EQ(443, netio_addr_port(&one));
    CHECK(netio_addr_class(&one) & NETIO_ADDR_LOOPBACK);
}

TEST(resolve, reverse_of_loopback_is_a_name)
{
    char here[300], bounded[300];
    netio_addr a;
    int n;
    long blocks = test_blocks();
    CHECK_OK(netio_addr_loopback(&a, NETIO_IPV4, 80));
    n = netio_resolve_reverse(&a, here, sizeof here, -1);
    if (n == NETIO_EAI_NONAME || n == NETIO_EAI_AGAIN) SKIP("127.0.0.1 has no name here");
    CHECK(n > 0);
    CHECK_EQ(strlen(here), n);
    CHECK(strcmp(here, "127.0.0.1") != 0);
    if (HAS_THREADS) {
        CHECK_EQ(n, netio_resolve_reverse(&a, bounded, sizeof bounded, 10000));
        CHECK_STR(here, bounded);
        CHECK_ERR(NETIO_ENOSPC, netio_resolve_reverse(&a, bounded, 1, 10000));
    }
    CHECK_ERR(NETIO_EAGAIN, netio_resolve_reverse(&a, bounded, sizeof bounded, 0));
    for (size_t cap = 0; cap <= (size_t)n + 1; cap++) {
        memset(bounded, 0x5A, sizeof bounded);
        CHECK_ERR(cap > (size_t)n ? n : NETIO_ENOSPC, netio_resolve_reverse(&a, bounded, cap, -1));
        for (size_t i = cap; i < sizeof bounded; i++) CHECK_EQ(0x5A, bounded[i]);
    }
    wait_freed(blocks);
}

TEST(resolve, reverse_wants_an_ip_address)
{
    char name[300];
    netio_addr a;
    static const int times[] = {-1, 0, 1000};
    for (size_t i = 0; i < 3; i++) {
        memset(&a, 0, sizeof a);
        if (HAS_UNIX) CHECK_OK(netio_addr_from_path(&a, "/run/x", 6));
        CHECK_ERR(NETIO_EINVAL, netio_resolve_reverse(&a, name, sizeof name, times[i]));
        memset(&a, 0, sizeof a);
        CHECK_ERR(NETIO_EINVAL, netio_resolve_reverse(&a, name, sizeof name, times[i]));
    }
}

TEST(resolve, reverse_survives_failing_allocations)
{
    char name[300];
    netio_addr a;
    long blocks = test_blocks(), used = test_allocs();
    need_threads();
    CHECK_OK(netio_addr_loopback(&a, NETIO_IPV4, 80));
    netio_resolve_reverse(&a, name, sizeof name, 10000);
    wait_freed(blocks);
    used = test_allocs() - used;
    CHECK(used >= 1);
    for (long n = 1; n <= used; n++) {
        test_alloc_fail_at(n);
        CHECK_ERR(NETIO_ENOMEM, netio_resolve_reverse(&a, name, sizeof name, 10000));
        test_alloc_fail_at(0);
        wait_freed(blocks);
    }
}

TEST(resolve, service_names_have_ports)
{
    static const char *const protocols[] = {"", "TCPIP", "sctp", "6"};
    int http = netio_service_port("http", "tcp");
    if (http == NETIO_ENOENT) SKIP("no table of services on this system");
    CHECK_EQ(80, http);
    CHECK_EQ(443, netio_service_port("https", "tcp"));
    CHECK_EQ(53, netio_service_port("domain", "udp"));
    CHECK_ERR(NETIO_ENOENT, netio_service_port("no-such-service", "tcp"));
    CHECK_ERR(NETIO_ENOENT, netio_service_port("no-such-service", "udp"));
    for (size_t i = 0; i < COUNT(protocols); i++) {
        int err = netio_service_port("http", protocols[i]);
        CHECK(err == NETIO_EINVAL || err == NETIO_ENOENT);
    }
    CHECK(netio_service_port("", "tcp") < 0);
    CHECK(netio_service_port(NULL, "tcp") < 0);
}

#ifdef __linux__
enum { FINDINGS = 4 };

typedef struct alone {
    const char *nsswitch, *resolv; // files to put over the system's; NULL: not
} alone;

// In a child, on a machine without network: look up what has no name, and what cannot be asked.
static void look_up_alone(ptrdiff_t *out, const alone *files)
{
    netio_addr a;
    char name[300];
    if (unshare(CLONE_NEWNS | CLONE_NEWNET) != 0) _exit(2);
    if (mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0) _exit(2);
    if (mount(files->resolv, "/etc/resolv.conf", "none", MS_BIND, NULL) != 0) _exit(2);
    if (!files->nsswitch) {
        out[0] = netio_resolve("name.invalid:80", &a, 1, NULL, -1);
        return;
    }
    if (mount(files->nsswitch, "/etc/nsswitch.conf", "none", MS_BIND, NULL) != 0) _exit(2);
    if (netio_addr_parse(&a, "192.0.2.1:80", 12) < 0) _exit(2);
    out[0] = netio_resolve_reverse(&a, name, sizeof name, -1);
    out[1] = netio_resolve_reverse(&a, name, sizeof name, HAS_THREADS ? 10000 : -1);
    out[2] = netio_resolve("name.invalid:80", &a, 1, NULL, -1);
    out[3] = netio_resolve("localhost:80", &a, 1, NULL, -1);
}

static bool in_child(const alone *files, ptrdiff_t *out)
{
    int fds[2], status = 0;
    ssize_t got = 0;
    pid_t pid;
    CHECK_EQ(0, pipe(fds));
    pid = fork();
    if (pid == 0) {
        ptrdiff_t found[FINDINGS] = {0, 0, 0, 0};
        close(fds[0]);
        look_up_alone(found, files);
        status = write(fds[1], found, sizeof found) == (ssize_t)sizeof found ? 0 : 1;
        close(fds[1]);
        _exit(status);
    }
    close(fds[1]);
    if (pid > 0) {
        got = read(fds[0], out, FINDINGS * sizeof *out);
        waitpid(pid, &status, 0);
    }
    close(fds[0]);
    return got == (ssize_t)(FINDINGS * sizeof *out) && status == 0;
}

static const char *write_file(const char *name, const char *text)
{
    const char *path = test_path(name);
    FILE *f = fopen(path, "w");
    CHECK(f != NULL);
    CHECK(fputs(text, f) >= 0);
    CHECK_EQ(0, fclose(f));
    return path;
}

static const char resolv_conf[] = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";

#ifdef __GLIBC__
static const bool reads_nsswitch = true;
#else
static const bool reads_nsswitch = false;
#endif

TEST(resolve, an_address_without_a_name_is_not_echoed)
{
    ptrdiff_t found[FINDINGS];
    alone files;
    bool ran;
    if (test_under("qemu")) SKIP("qemu-user has no namespaces of the guest's");
    if (!reads_nsswitch) SKIP("this C library cannot be told to ask no name server");
    files.nsswitch = write_file("nsswitch.conf", "hosts: files\nservices: files\n");
    files.resolv = write_file("resolv.conf", resolv_conf);
    ask_real(true);
    ran = in_child(&files, found);
    ask_real(false);
    if (!ran) SKIP("no right to put files over those of /etc for a child");
    for (int i = 0; i < 3; i++) CHECK_ERR(NETIO_EAI_NONAME, found[i]);
    CHECK_ERR(1, found[3]);
}

TEST(resolve, name_servers_out_of_reach_are_not_a_missing_name)
{
    ptrdiff_t found[FINDINGS];
    alone files;
    bool ran;
    if (test_under("qemu")) SKIP("qemu-user has no namespaces of the guest's");
    files.nsswitch = NULL;
    files.resolv = write_file("resolv.conf", resolv_conf);
    ask_real(true);
    ran = in_child(&files, found);
    ask_real(false);
    if (!ran) SKIP("no right to make a network of our own");
    if (found[0] == NETIO_EAI_NONAME) SKIP("this system asks no name server");
    CHECK_ERR(NETIO_EAI_AGAIN, found[0]);
}
#else
TEST(resolve, an_address_without_a_name_is_not_echoed) { SKIP("needs Linux namespaces"); }
TEST(resolve, name_servers_out_of_reach_are_not_a_missing_name) { SKIP("needs Linux namespaces"); }
#endif

// clang-format off
TEST_MAIN("resolve",
    T(resolve, literals_never_reach_the_resolver),
    T(resolve, literals_take_service_names),
    T(resolve, half_literals_are_refused_before_the_resolver),
    T(resolve, text_without_host_and_port_is_refused),
    T(resolve, numbers_work_while_the_resolver_is_dead),
    T(resolve, names_become_addresses),
    T(resolve, names_take_service_names),
    T(resolve, no_limit_is_on_this_thread_and_needs_no_memory),
    T(resolve, a_limit_is_on_a_thread_of_its_own),
    T(resolve, no_time_is_eagain_without_a_call),
    T(resolve, resolver_codes_become_netio_errors),
    T(resolve, families_alternate_from_the_first),
    T(resolve, repetitions_are_left_out),
    T(resolve, a_family_filter_holds),
    T(resolve, a_wrong_family_is_refused),
    T(resolve, at_most_the_documented_number_is_given),
    T(resolve, strange_answers_are_skipped),
    T(resolve, only_names_reach_the_resolver),
    T(resolve, long_names_arrive_whole_or_not_at_all),
    T(resolve, a_stuck_resolver_does_not_hold_the_caller),
    T(resolve, an_answer_at_the_deadline_is_taken_or_freed),
    T(resolve, at_most_64_lookups_hang),
    T(resolve, allocations_may_fail_at_every_step),
    T(resolve, threads_may_ask_at_once),
    T(resolve, own_resolver_takes_the_systems_place),
    T(resolve, own_resolver_answers_are_put_in_order),
    T(resolve, own_resolver_errors_and_lies_are_contained),
    T(resolve, own_resolver_may_outlive_the_call),
    T(resolve, connect_tries_addresses_until_one_answers),
    T(resolve, connect_reports_every_attempt),
    T(resolve, connect_shares_one_deadline_with_the_lookup),
    T(resolve, connect_races_past_a_black_hole),
    T(resolve, localhost_is_this_machine),
    T(resolve, first_address_of_a_name_needs_room_for_one),
    T(resolve, reverse_of_loopback_is_a_name),
    T(resolve, reverse_wants_an_ip_address),
    T(resolve, reverse_survives_failing_allocations),
    T(resolve, service_names_have_ports),
    T(resolve, an_address_without_a_name_is_not_echoed),
    T(resolve, name_servers_out_of_reach_are_not_a_missing_name))
// clang-format on
