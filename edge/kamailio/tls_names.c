/* Kamailio verifies the chain of a TLS server's certificate, not that it carries the name that was dialled. OpenSSL can do
   that in the handshake, if told to: this library, preloaded into Kamailio, tells it to wherever Kamailio says which name
   it wants (SNI). An IP address is verified as one, and is no SNI (RFC 6066 section 3).

   What fails here fails the connection: Kamailio gives it up when setting the name fails. Declared by hand, so that
   no header files need to be installed. */

#define SET_HOST_NAME 55 /* SSL_CTRL_SET_TLSEXT_HOSTNAME */
#define LAZY_AND_LOADED 5 /* RTLD_LAZY | RTLD_NOLOAD */

void *dlopen(const char *file, int mode);
void *dlsym(void *library, const char *name);

static void *function(const char *library, const char *name)
{
    void *loaded = dlopen(library, LAZY_AND_LOADED);
    return loaded ? dlsym(loaded, name) : 0;
}

long SSL_ctrl(void *ssl, int command, long number, void *value)
{
    long (*control)(void *, int, long, void *) = function("libssl.so.3", "SSL_ctrl");
    void *(*parameters)(void *) = function("libssl.so.3", "SSL_get0_param");
    int (*set_address)(void *, const char *) = function("libcrypto.so.3", "X509_VERIFY_PARAM_set1_ip_asc");
    int (*set_host)(void *, const char *) = function("libssl.so.3", "SSL_set1_host");

    if (!control || !parameters || !set_address || !set_host)
        return 0;
    if (command == SET_HOST_NAME) {
        if (set_address(parameters(ssl), value))
            return 1;
        if (!set_host(ssl, value))
            return 0;
    }
    return control(ssl, command, number, value);
}
