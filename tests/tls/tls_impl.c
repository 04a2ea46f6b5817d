// netio.h and netio_tls.h as the TLS tests link them, with the hooks of support/test.c.
#define NETIO_MALLOC(size) test_malloc(size)
#define NETIO_REALLOC(ptr, size) test_realloc(ptr, size)
#define NETIO_FREE(ptr) test_free(ptr)
#define NETIO_ASSERT(expr) ((expr) ? (void)0 : test_assert(__FILE__, __LINE__, #expr))
#define NETIO_ON_OP(op, socket, result) test_on_op(op, socket, result)
#include "test.h"

#define NETIO_IMPLEMENTATION
#include "netio_tls.h"
