// The same with both headers: netio_tls.h includes netio.h.
#include "netio_tls.h"
