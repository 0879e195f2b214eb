/* One TLS connection with the device's certificate (mbedTLS 2.28 or 3). */
#ifndef TLS_H
#define TLS_H

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>

typedef struct {
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context random;
    mbedtls_x509_crt roots, chain;
    mbedtls_pk_context key;
} device_identity;

typedef struct {
    mbedtls_ssl_context ssl;
    mbedtls_ssl_config config;
    mbedtls_net_context socket;
    const char *host;
} tls_connection;

/* Both return 0, or mbedTLS's error. */
int identity_load(device_identity *identity, const char *roots_pem, const char *cert_file, const char *key_file);
int tls_open(tls_connection *connection, device_identity *identity, const char *host, const char *port);

void tls_close(tls_connection *connection);
void identity_free(device_identity *identity);

#endif
