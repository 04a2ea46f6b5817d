#define NETIO_IMPLEMENTATION
#include <netio.h>
