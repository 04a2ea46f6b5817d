// The one implementation that the test programs link, with its hooks led to test.c.
#define NETIO_MALLOC(size) test_malloc(size)
#define NETIO_REALLOC(ptr, size) test_realloc(ptr, size)
#define NETIO_FREE(ptr) test_free(ptr)
#define NETIO_ASSERT(expr) ((expr) ? (void)0 : test_assert(__FILE__, __LINE__, #expr))
#define NETIO_ON_OP(op, socket, result) test_on_op(op, socket, result)

// The declarations first, as test.h needs them; then the code, which is late to the first system
// header here, as in most programs. tests/compile/ has the other order.
#include "test.h"

#if defined(NETIO_TEST_RESOLVER) // the test program stands in for the system's resolver
struct addrinfo;
int test_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                     struct addrinfo **out);
void test_freeaddrinfo(struct addrinfo *list);
#define NETIO_GETADDRINFO test_getaddrinfo
#define NETIO_FREEADDRINFO test_freeaddrinfo
#endif

#define NETIO_IMPLEMENTATION
#include "netio.h"
