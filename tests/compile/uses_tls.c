// Every options struct and constant of netio_tls.h in the hands of a user, in C and in C++.
#include "netio_tls.h"

#ifdef __cplusplus
#define ZERO {}
#else
#define ZERO {0}
#endif

int uses_tls(void);
int uses_tls(void)
{
    netio_tls_cert cert = ZERO;
    netio_tls_client_opts opts = ZERO;
    netio_tls_config cfg = ZERO;
    netio_tls_error why = ZERO;
    netio_tls_identity identity = ZERO;
    netio_tls_info info = ZERO;
    netio_tls_ctx *ctx = 0;
    netio_tls *t = 0;
    cfg.backend = NETIO_TLS_BACKEND_AUTO;
    cfg.client_cert = NETIO_TLS_CLIENT_CERT_REQUIRED;
    cfg.min_version = NETIO_TLS_1_2;
    cfg.more = &identity;
    info.chain = &cert;
    opts.session = 0;
    if (netio_tls_ctx_create(&ctx, &cfg, &why) < 0) return why.code == NETIO_TLS_CONFIG;
    if (netio_tls_client(&t, ctx, "example.test", &opts) < 0) return 1;
    if (netio_tls_get_info(t, &info) < 0) return 1;
    netio_tls_destroy(t);
    netio_tls_ctx_unref(ctx);
    return (why.verify & NETIO_TLS_NAME) != 0;
}
