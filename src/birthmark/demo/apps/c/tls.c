#include "tls.h"

#include <arpa/inet.h>
#include <mbedtls/version.h>
#include <string.h>

enum { READ_TIMEOUT_MS = 20000, IP_ADDRESS = MBEDTLS_ASN1_CONTEXT_SPECIFIC | 7 };

/* ---- the key */

/* Where a chip's key goes. In the simulator it is read from a file; on a board none of this is left, and the key never is
 * in memory. `identity->key` becomes a handle that asks the chip for each signature:
 *
 *   ATECC608 with esp-cryptoauthlib:   atca_mbedtls_pk_init(&identity->key, 0);          slot 0
 *   SE050 with NXP's middleware:       sss_mbedtls_associate_keypair(&identity->key, &object);   0xF0000100
 *   PSA (TF-M, ESP32 with DS):         mbedtls_pk_setup_opaque(&identity->key, key_id);
 *
 * The certificate is read from the chip as well: into `identity->chain`, by mbedtls_x509_crt_parse_der. */
static int load_key(device_identity *identity, const char *key_file) {
#if MBEDTLS_VERSION_MAJOR >= 3
    return mbedtls_pk_parse_keyfile(&identity->key, key_file, NULL, mbedtls_ctr_drbg_random, &identity->random);
#else
    return mbedtls_pk_parse_keyfile(&identity->key, key_file, NULL);
#endif
}

int identity_load(device_identity *identity, const char *roots_pem, const char *cert_file, const char *key_file) {
    int code;
    mbedtls_entropy_init(&identity->entropy);
    mbedtls_ctr_drbg_init(&identity->random);
    mbedtls_x509_crt_init(&identity->roots);
    mbedtls_x509_crt_init(&identity->chain);
    mbedtls_pk_init(&identity->key);
    if ((code = mbedtls_ctr_drbg_seed(&identity->random, mbedtls_entropy_func, &identity->entropy, NULL, 0)) != 0) {
        return code;
    }
    code = mbedtls_x509_crt_parse(&identity->roots, (const unsigned char *)roots_pem, strlen(roots_pem) + 1);
    if (code == 0) {
        code = mbedtls_x509_crt_parse_file(&identity->chain, cert_file);
    }
    return code == 0 ? load_key(identity, key_file) : code;
}

void identity_free(device_identity *identity) {
    mbedtls_pk_free(&identity->key);
    mbedtls_x509_crt_free(&identity->chain);
    mbedtls_x509_crt_free(&identity->roots);
    mbedtls_ctr_drbg_free(&identity->random);
    mbedtls_entropy_free(&identity->entropy);
}

/* ---- the server's name */

/* mbedTLS before 3.5 compares names only, and a server of one's own often has but an address: look for it here. */
static int has_address(const mbedtls_x509_crt *certificate, const uint8_t *address, size_t length) {
    const mbedtls_x509_sequence *name = &certificate->subject_alt_names;
    for (; name != NULL; name = name->next) {
        if (name->buf.tag == IP_ADDRESS && name->buf.len == length && memcmp(name->buf.p, address, length) == 0) {
            return 1;
        }
    }
    return 0;
}

static size_t address_of(const char *host, uint8_t *address) {
    if (inet_pton(AF_INET, host, address) == 1) {
        return 4;
    }
    return inet_pton(AF_INET6, host, address) == 1 ? 16 : 0;
}

static int check_address(void *context, mbedtls_x509_crt *certificate, int depth, uint32_t *flags) {
    uint8_t address[16];
    size_t length = address_of(((const tls_connection *)context)->host, address);
    if (depth == 0 && length > 0 && !has_address(certificate, address, length)) {
        *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    }
    return 0;
}

/* ---- the connection */

static int configure(tls_connection *connection, device_identity *identity) {
    mbedtls_ssl_config *config = &connection->config;
    int code = mbedtls_ssl_config_defaults(
        config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    if (code != 0) {
        return code;
    }
    mbedtls_ssl_conf_authmode(config, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(config, &identity->roots, NULL);
    mbedtls_ssl_conf_verify(config, check_address, connection);
    mbedtls_ssl_conf_rng(config, mbedtls_ctr_drbg_random, &identity->random);
    mbedtls_ssl_conf_read_timeout(config, READ_TIMEOUT_MS);
    return mbedtls_ssl_conf_own_cert(config, &identity->chain, &identity->key);
}

int tls_open(tls_connection *connection, device_identity *identity, const char *host, const char *port) {
    uint8_t address[16];
    int code;
    connection->host = host;
    mbedtls_net_init(&connection->socket);
    mbedtls_ssl_init(&connection->ssl);
    mbedtls_ssl_config_init(&connection->config);
    if ((code = configure(connection, identity)) != 0 ||
        (code = mbedtls_ssl_setup(&connection->ssl, &connection->config)) != 0 ||
        (code = mbedtls_ssl_set_hostname(&connection->ssl, address_of(host, address) > 0 ? NULL : host)) != 0 ||
        (code = mbedtls_net_connect(&connection->socket, host, port, MBEDTLS_NET_PROTO_TCP)) != 0) {
        return code;
    }
    mbedtls_ssl_set_bio(&connection->ssl, &connection->socket, mbedtls_net_send, NULL, mbedtls_net_recv_timeout);
    do {
        code = mbedtls_ssl_handshake(&connection->ssl);
    } while (code == MBEDTLS_ERR_SSL_WANT_READ || code == MBEDTLS_ERR_SSL_WANT_WRITE);
    return code;
}

void tls_close(tls_connection *connection) {
    mbedtls_ssl_close_notify(&connection->ssl);
    mbedtls_net_free(&connection->socket);
    mbedtls_ssl_free(&connection->ssl);
    mbedtls_ssl_config_free(&connection->config);
}
