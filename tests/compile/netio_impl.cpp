// The tests' implementation compiled as C++, for test programs in C: their hooks are C functions.
extern "C" {
#include "test.h"
struct addrinfo;
int test_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                     struct addrinfo **out);
void test_freeaddrinfo(struct addrinfo *list);
}
#include "../support/netio_impl.c"
