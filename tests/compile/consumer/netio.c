#define NETIO_IMPLEMENTATION
#ifdef NETIO_TLS_OPENSSL // said by netio::tls
#include <netio_tls.h>
#else
#include <netio.h>
#endif
