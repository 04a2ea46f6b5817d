// The runner behind test.h.
#ifndef _WIN32
#define _GNU_SOURCE
#endif
#include "test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#ifdef _WIN32
#include <winsock2.h>
#include <windows.h>
#include <direct.h>
#include <malloc.h>
#else
#ifdef __linux__
#include <malloc.h>
#endif
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#endif

static struct {
    jmp_buf out;
    bool failed, skipped;
    int backend;
    bool in_memory, rough, soak;
    unsigned serial;
    long blocks, allocs, fail_at;
    long long bytes;
    long ops[16];
    char dir[256];
    char paths[8][300];
    unsigned path_next;
} g;

//================================================================================================
// Threads, locks, time: POSIX, then Windows
//================================================================================================

#ifndef _WIN32
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void locked(void) { pthread_mutex_lock(&lock); }
static void unlocked(void) { pthread_mutex_unlock(&lock); }

static void *thread_entry(void *arg)
{
    test_thread *t = (test_thread *)arg;
    t->run(t->arg);
    return NULL;
}

void test_thread_start(test_thread *t, void (*run)(void *arg), void *arg)
{
    pthread_t *id = (pthread_t *)malloc(sizeof *id);
    t->run = run;
    t->arg = arg;
    t->handle = id;
    if (!id || pthread_create(id, NULL, thread_entry, t) != 0) test_fail("test.c", 0, "no thread");
}

void test_thread_join(test_thread *t)
{
    pthread_join(*(pthread_t *)t->handle, NULL);
    free(t->handle);
}

uint64_t test_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

void test_sleep_ms(int ms)
{
    uint64_t until = test_ms() + (uint64_t)ms;
    while (test_ms() < until) {
        struct timespec ts = {0, 1000000};
        nanosleep(&ts, NULL);
    }
}

uint64_t test_cpu_ms(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000u +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000u;
}

int test_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 8192; fd++)
        if (fcntl(fd, F_GETFD) != -1) count++;
    return count;
}

static void make_dir(void)
{
    snprintf(g.dir, sizeof g.dir, "/tmp/netio-test-XXXXXX");
    if (!mkdtemp(g.dir)) g.dir[0] = 0;
}

static void remove_dir(void)
{
    DIR *d = g.dir[0] ? opendir(g.dir) : NULL;
    if (!d) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", g.dir, e->d_name);
        if (e->d_name[0] != '.') unlink(path);
    }
    closedir(d);
    rmdir(g.dir);
}

static bool under_wine(void) { return false; }
static const char separator = '/';
#else
static SRWLOCK lock = SRWLOCK_INIT;
static void locked(void) { AcquireSRWLockExclusive(&lock); }
static void unlocked(void) { ReleaseSRWLockExclusive(&lock); }

static DWORD WINAPI thread_entry(LPVOID arg)
{
    test_thread *t = (test_thread *)arg;
    t->run(t->arg);
    return 0;
}

void test_thread_start(test_thread *t, void (*run)(void *arg), void *arg)
{
    t->run = run;
    t->arg = arg;
    t->handle = CreateThread(NULL, 0, thread_entry, t, 0, NULL);
    if (!t->handle) test_fail("test.c", 0, "no thread");
}

void test_thread_join(test_thread *t)
{
    WaitForSingleObject(t->handle, INFINITE);
    CloseHandle(t->handle);
}

uint64_t test_ms(void)
{
    LARGE_INTEGER now, per_s;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&per_s);
    return (uint64_t)((double)now.QuadPart * 1000.0 / (double)per_s.QuadPart);
}

void test_sleep_ms(int ms) { Sleep((DWORD)ms); }

uint64_t test_cpu_ms(void)
{
    FILETIME made, ended, kernel, user;
    GetProcessTimes(GetCurrentProcess(), &made, &ended, &kernel, &user);
    return ((((uint64_t)kernel.dwHighDateTime << 32) | kernel.dwLowDateTime) +
            (((uint64_t)user.dwHighDateTime << 32) | user.dwLowDateTime)) /
           10000u;
}

int test_descriptors(void) { return 0; }

static void make_dir(void)
{
    char base[128];
    DWORD n = GetTempPathA(sizeof base, base);
    if (n == 0 || n >= sizeof base) base[0] = 0;
    snprintf(g.dir, sizeof g.dir, "%snetio-test-%lu", base, (unsigned long)GetCurrentProcessId());
    _mkdir(g.dir);
}

static void remove_dir(void)
{
    char path[600];
    WIN32_FIND_DATAA found;
    snprintf(path, sizeof path, "%s\\*", g.dir);
    HANDLE h = FindFirstFileA(path, &found);
    if (h != INVALID_HANDLE_VALUE) {
        do {
            snprintf(path, sizeof path, "%s\\%s", g.dir, found.cFileName);
            if (found.cFileName[0] != '.') DeleteFileA(path);
        } while (FindNextFileA(h, &found));
        FindClose(h);
    }
    _rmdir(g.dir);
}

static bool under_wine(void)
{
    HMODULE ntdll = GetModuleHandleA("ntdll.dll");
    return ntdll && GetProcAddress(ntdll, "wine_get_version") != NULL;
}
static const char separator = '\\';
#endif

int test_shared_get(const int *value)
{
    locked();
    int n = *value;
    unlocked();
    return n;
}

void test_shared_add(int *value, int n)
{
    locked();
    *value += n;
    unlocked();
}

//================================================================================================
// Where we run
//================================================================================================

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

bool test_under(const char *what)
{
    const char *runner = getenv("NETIO_TEST_UNDER"); // "qemu" or "valgrind", set by their runner
    if (strcmp(what, "wine") == 0) return under_wine();
    if (strcmp(what, "sanitizer") == 0) return SANITIZED;
    return runner && strcmp(runner, what) == 0;
}

int test_backend(void) { return g.backend; }
bool test_in_memory(void) { return g.in_memory; }
bool test_rough(void) { return g.rough; }
bool test_soak(void) { return g.soak; }
unsigned test_serial(void) { return g.serial; }

const char *test_path(const char *name)
{
    char *out = g.paths[g.path_next++ % 8];
    if (!g.dir[0]) make_dir();
    snprintf(out, sizeof g.paths[0], "%s%c%s", g.dir, separator, name);
    return out;
}

//================================================================================================
// Checks
//================================================================================================

void test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("    %s:%d: ", file, line);
    vprintf(format, args);
    printf("\n");
    va_end(args);
    fflush(stdout);
    g.failed = true;
    longjmp(g.out, 1);
}

void test_skip(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("    skipped: ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    g.skipped = true;
    longjmp(g.out, 1);
}

void test_check_eq(const char *file, int line, const char *text, long long want, long long got)
{
    if (want != got) test_fail(file, line, "%s: want %lld, got %lld", text, want, got);
}

void test_check_err(const char *file, int line, const char *text, ptrdiff_t want, ptrdiff_t got)
{
    if (want == got) return;
    test_fail(file, line, "%s: want %ld %s, got %ld %s (os %d)", text, (long)want,
              want < 0 ? netio_errname(want) : "", (long)got, got < 0 ? netio_errname(got) : "",
              netio_os_error());
}

void test_check_str(const char *file, int line, const char *text, const char *want, const char *got)
{
    if (strcmp(want, got) != 0)
        test_fail(file, line, "%s: want \"%s\", got \"%s\"", text, want, got);
}

void test_check_mem(const char *file, int line, const char *text, const void *want, const void *got,
                    size_t len)
{
    const unsigned char *w = (const unsigned char *)want, *g1 = (const unsigned char *)got;
    for (size_t i = 0; i < len; i++)
        if (w[i] != g1[i])
            test_fail(file, line, "%s: byte %lu of %lu: want %02x, got %02x", text,
                      (unsigned long)i, (unsigned long)len, w[i], g1[i]);
}

void test_check_between(const char *file, int line, const char *text, long long low, long long high,
                        long long got)
{
    if (got < low || got > high)
        test_fail(file, line, "%s: want %lld to %lld, got %lld", text, low, high, got);
}

//================================================================================================
// Hooks: memory, operations
//================================================================================================

static bool alloc_allowed(void)
{
    bool ok;
    locked();
    g.allocs++;
    ok = g.fail_at == 0 || --g.fail_at > 0;
    unlocked();
    return ok;
}

#if defined(__linux__)
static size_t block_size(void *p) { return p ? malloc_usable_size(p) : 0; }
static const bool sizes_known = true;
#elif defined(_WIN32)
static size_t block_size(void *p) { return p ? _msize(p) : 0; }
static const bool sizes_known = true;
#else
static size_t block_size(void *p) { return (void)p, (size_t)0; }
static const bool sizes_known = false;
#endif

static void count_block(long n, long long bytes)
{
    locked();
    g.blocks += n;
    g.bytes += bytes;
    unlocked();
}

void *test_malloc(size_t size)
{
    void *p = alloc_allowed() ? malloc(size) : NULL;
    if (p) {
        memset(p, 0xA5, size); // nobody may rely on zeroes
        count_block(1, (long long)block_size(p));
    }
    return p;
}

void *test_realloc(void *ptr, size_t size)
{
    long long old = (long long)block_size(ptr);
    void *p = alloc_allowed() ? realloc(ptr, size) : NULL;
    if (p) count_block(ptr ? 0 : 1, (long long)block_size(p) - old);
    return p;
}

void test_free(void *ptr)
{
    if (ptr) count_block(-1, -(long long)block_size(ptr));
    free(ptr);
}

long long test_bytes(void)
{
    locked();
    long long n = sizes_known ? g.bytes : -1;
    unlocked();
    return n;
}

void test_alloc_fail_at(long n)
{
    locked();
    g.fail_at = n;
    unlocked();
}

long test_blocks(void)
{
    locked();
    long n = g.blocks;
    unlocked();
    return n;
}

long test_allocs(void)
{
    locked();
    long n = g.allocs;
    unlocked();
    return n;
}

void test_assert(const char *file, int line, const char *expr)
{
    fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, expr);
    abort();
}

void test_on_op(int op, netio_socket s, ptrdiff_t result)
{
    (void)s, (void)result;
    locked();
    if (op > 0 && op < 16) g.ops[op]++;
    unlocked();
}

long test_ops(int op)
{
    locked();
    long n = g.ops[op];
    unlocked();
    return n;
}

//================================================================================================
// Helpers
//================================================================================================

uint32_t test_random(uint32_t *state)
{
    uint32_t x = *state ? *state : 0x9E3779B9u;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

void test_fill(void *buf, size_t len, uint32_t seed)
{
    unsigned char *p = (unsigned char *)buf;
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < len; i++) p[i] = (unsigned char)(test_random(&state) >> 11);
}

void test_listen(netio_socket *out, char text[NETIO_ADDR_TEXT], const char *address)
{
    netio_addr a;
    CHECK_OK(netio_listen(out, address, NULL));
    CHECK_OK(netio_local_addr(*out, &a));
    CHECK(netio_addr_format(&a, text, NETIO_ADDR_TEXT) > 0);
}

void test_tcp_pair(netio_socket *client, netio_socket *server)
{
    netio_socket listener;
    char text[NETIO_ADDR_TEXT];
    test_listen(&listener, text, "127.0.0.1:0");
    CHECK_OK(netio_connect(client, text, NULL, 5000));
    CHECK_OK(netio_accept(server, listener, NULL, 5000));
    CHECK_OK(netio_close(&listener));
}

//================================================================================================
// The runner
//================================================================================================

static bool run_one(const test_case *t)
{
    volatile int fds = test_descriptors(); // they live on past longjmp
    volatile long blocks = test_blocks();
    g.failed = g.skipped = false;
    g.serial++;
    memset(g.ops, 0, sizeof g.ops);
    printf("  %s\n", t->name);
    fflush(stdout);
    if (setjmp(g.out) == 0) t->run();
    test_alloc_fail_at(0);
    if (g.failed || g.skipped) return !g.failed;
    if (test_descriptors() != fds) {
        printf("    %d descriptors before, %d after\n", fds, test_descriptors());
        g.failed = true;
    }
    if (test_blocks() != blocks) {
        printf("    %ld blocks before, %ld after\n", blocks, test_blocks());
        g.failed = true;
    }
    return !g.failed;
}

static int find_backend(const char *name)
{
    g.rough = strcmp(name, "memory-rough") == 0;
    g.in_memory = g.rough || strcmp(name, "memory") == 0;
    if (g.in_memory) return NETIO_BACKEND_AUTO;
    for (int b = NETIO_BACKEND_AUTO; b <= NETIO_BACKEND_IOURING; b++)
        if (strcmp(netio_backend_name(b), name) == 0) return b;
    fprintf(stderr, "no backend \"%s\"\n", name);
    exit(2);
}

static bool wanted(const char *name, int argc, char **argv, int first)
{
    if (first >= argc) return true;
    for (int i = first; i < argc; i++)
        if (strstr(name, argv[i])) return true;
    return false;
}

int test_main(const char *section, const test_case *cases, size_t count, int argc, char **argv)
{
    const char *backend = getenv("NETIO_TEST_BACKEND"), *soak = getenv("NETIO_TEST_SOAK");
    int first = 1, ran = 0, failed = 0, skipped = 0;
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (strcmp(argv[first], "--list") == 0) {
            for (size_t i = 0; i < count; i++) printf("%s\n", cases[i].name);
            return 0;
        }
        if (strcmp(argv[first], "--backend") == 0 && first + 1 < argc) backend = argv[++first];
        if (strcmp(argv[first], "--soak") == 0) g.soak = true;
    }
    if (soak && soak[0]) g.soak = true;
    if (backend && backend[0]) g.backend = find_backend(backend);
    if (g.backend && !netio_backend_available(g.backend)) {
        printf("%s: skipped: backend %s is not in this build\n", section, backend);
        return 77;
    }
    printf("%s, backend %s\n", section, backend && backend[0] ? backend : "auto");
    for (size_t i = 0; i < count; i++) {
        if (!wanted(cases[i].name, argc, argv, first)) continue;
        ran++;
        if (!run_one(&cases[i])) failed++, printf("    FAILED: %s\n", cases[i].name);
        if (g.skipped) skipped++;
    }
    remove_dir();
    if (skipped) printf("%d skipped, see their reasons above\n", skipped);
    if (failed) printf("FAIL %d of %d\n", failed, ran);
    else printf("PASS %d\n", ran - skipped);
    return failed ? 1 : ran == skipped ? 77 : 0;
}
