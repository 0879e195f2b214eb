/* Register at DPS over MQTT with an X.509 identity, connect to the assigned hub, send telemetry.
 *
 *     device CERTIFICATE KEY [REGISTRATION-ID]
 *
 * `birthmark.h` says where: `birthmark env --format c > birthmark.h`. The files of the identity are for the simulator; on a
 * board both come from the chip, see `load_key` in tls.c. */
#include <mbedtls/error.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "birthmark.h"
#include "mqtt.h"
#include "tls.h"

enum { BUFFER_BYTES = 4096, KEEP_ALIVE_S = 60, MESSAGES = 3, POLLS = 20, TEXT_BYTES = 256 };

typedef struct {
    tls_connection tls;
    uint8_t received[BUFFER_BYTES];
    size_t length;     /* of what was received */
    size_t taken;      /* of it: the packet that was read last */
    uint16_t packet_id;
} session;

static void stop(const char *what, int code) {
    char text[128] = "";
    if (code != 0) {
        mbedtls_strerror(code, text, sizeof text);
    }
    fprintf(stderr, "%s%s%s\n", what, code == 0 ? "" : ": ", text);
    exit(1);
}

/* ---- packets */

static void send_packet(session *mqtt, const uint8_t *packet, size_t length) {
    size_t sent = 0;
    if (length == 0) {
        stop("the packet does not fit", 0);
    }
    while (sent < length) {
        int code = mbedtls_ssl_write(&mqtt->tls.ssl, packet + sent, length - sent);
        if (code < 0 && code != MBEDTLS_ERR_SSL_WANT_READ && code != MBEDTLS_ERR_SSL_WANT_WRITE) {
            stop("sending", code);
        }
        sent += code > 0 ? (size_t)code : 0;
    }
}

static mqtt_packet next_packet(session *mqtt) {
    mqtt_packet packet;
    mqtt->length -= mqtt->taken;
    memmove(mqtt->received, mqtt->received + mqtt->taken, mqtt->length);
    for (;;) {
        long used = mqtt_parse(mqtt->received, mqtt->length, &packet);
        int code;
        if (used < 0 || mqtt->length == BUFFER_BYTES) {
            stop("the server speaks no MQTT that this program knows", 0);
        }
        if (used > 0) {
            mqtt->taken = (size_t)used;
            return packet;
        }
        code = mbedtls_ssl_read(&mqtt->tls.ssl, mqtt->received + mqtt->length, BUFFER_BYTES - mqtt->length);
        if (code == 0 || code == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
            stop("the server closed the connection: `birthmark why` tells the reason", 0);
        }
        if (code < 0 && code != MBEDTLS_ERR_SSL_WANT_READ && code != MBEDTLS_ERR_SSL_WANT_WRITE) {
            stop("receiving", code);
        }
        mqtt->length += code > 0 ? (size_t)code : 0;
    }
}

/* Returns the next packet of a type; messages that come meanwhile are acknowledged. */
static mqtt_packet expect(session *mqtt, int type) {
    uint8_t out[16];
    for (;;) {
        mqtt_packet packet = next_packet(mqtt);
        if (packet.type == MQTT_PUBLISH && packet.packet_id != 0) {
            send_packet(mqtt, out, mqtt_puback(out, sizeof out, packet.packet_id));
        }
        if (packet.type == type) {
            return packet;
        }
    }
}

static void open_session(
    session *mqtt, device_identity *identity, const char *host, const char *client_id, const char *username) {
    uint8_t out[BUFFER_BYTES];
    int code;
    memset(mqtt, 0, sizeof *mqtt);
    if ((code = tls_open(&mqtt->tls, identity, host, BIRTHMARK_MQTT_PORT)) != 0) {
        stop(host, code);
    }
    send_packet(mqtt, out, mqtt_connect(out, sizeof out, client_id, username, KEEP_ALIVE_S));
    if (expect(mqtt, MQTT_CONNACK).code != 0) {
        stop("the server refused the connection: `birthmark why` tells the reason", 0);
    }
}

static void publish(session *mqtt, const char *topic, const char *payload) {
    uint8_t out[BUFFER_BYTES];
    uint16_t id = ++mqtt->packet_id;
    send_packet(mqtt, out, mqtt_publish(out, sizeof out, id, topic, payload, strlen(payload)));
}

static void close_session(session *mqtt) {
    uint8_t out[16];
    send_packet(mqtt, out, mqtt_disconnect(out, sizeof out));
    tls_close(&mqtt->tls);
}

/* ---- what DPS says */

/* Copies the text of a JSON member: enough for ids and host names, which have no escapes. Returns whether it is there. */
static int member(const mqtt_packet *packet, const char *name, char *out) {
    char wanted[64];
    const char *at, *start = (const char *)packet->payload, *end = start + packet->payload_length;
    size_t length = (size_t)snprintf(wanted, sizeof wanted, "\"%s\"", name), used = 0;
    for (at = start; at + length <= end && memcmp(at, wanted, length) != 0; at++) {
    }
    for (at += length; at < end && (*at == ' ' || *at == ':'); at++) {
    }
    if (at >= end || *at++ != '"') {
        return 0;
    }
    for (; at < end && *at != '"' && used + 1 < TEXT_BYTES; at++) {
        out[used++] = *at;
    }
    out[used] = '\0';
    return 1;
}

static void check_answer(const mqtt_packet *packet) {
    static const char prefix[] = "$dps/registrations/res/2"; /* 200 or 202 */
    if (packet->topic_length < sizeof prefix - 1 || memcmp(packet->topic, prefix, sizeof prefix - 1) != 0) {
        fprintf(stderr, "%.*s\n", (int)packet->payload_length, (const char *)packet->payload);
        stop("DPS refused the registration", 0);
    }
}

static void register_device(device_identity *identity, const char *id, char *hub, char *device_id) {
    static session mqtt;
    uint8_t out[BUFFER_BYTES];
    char text[3 * TEXT_BYTES], operation[TEXT_BYTES], status[TEXT_BYTES];
    int poll;
    snprintf(text, sizeof text, BIRTHMARK_DPS_USERNAME_FORMAT, id);
    open_session(&mqtt, identity, BIRTHMARK_DPS_HOST, id, text);
    send_packet(&mqtt, out, mqtt_subscribe(out, sizeof out, ++mqtt.packet_id, BIRTHMARK_DPS_ANSWERS_TOPIC));
    expect(&mqtt, MQTT_SUBACK);
    snprintf(text, sizeof text, "{\"registrationId\":\"%s\"}", id);
    publish(&mqtt, BIRTHMARK_DPS_REGISTER_TOPIC, text);
    for (poll = 0; poll < POLLS; poll++) {
        mqtt_packet answer = expect(&mqtt, MQTT_PUBLISH);
        check_answer(&answer);
        if (member(&answer, "assignedHub", hub) && member(&answer, "deviceId", device_id)) {
            close_session(&mqtt);
            return;
        }
        if (!member(&answer, "status", status) || strcmp(status, "assigning") != 0) {
            stop("DPS does not assign this device", 0);
        }
        if (member(&answer, "operationId", operation)) {
            snprintf(text, sizeof text, BIRTHMARK_DPS_STATUS_TOPIC_FORMAT, operation);
        }
        sleep(2);
        publish(&mqtt, text, "{}");
    }
    stop("DPS has not assigned this device in time", 0);
}

/* ---- telemetry */

static void send_telemetry(device_identity *identity, const char *hub, const char *device_id) {
    static session mqtt;
    char text[3 * TEXT_BYTES], topic[2 * TEXT_BYTES];
    int number;
    snprintf(text, sizeof text, BIRTHMARK_HUB_USERNAME_FORMAT, hub, device_id);
    snprintf(topic, sizeof topic, BIRTHMARK_EVENTS_TOPIC_FORMAT, device_id);
    open_session(&mqtt, identity, hub, device_id, text);
    for (number = 0; number < MESSAGES; number++) {
        snprintf(text, sizeof text, "{\"number\":%d,\"from\":\"C\"}", number);
        publish(&mqtt, topic, text);
        expect(&mqtt, MQTT_PUBACK);
    }
    close_session(&mqtt);
}

int main(int count, char **arguments) {
    static device_identity identity;
    char hub[TEXT_BYTES], device_id[TEXT_BYTES];
    const char *id = BIRTHMARK_REGISTRATION_ID;
    int code;
    if (count < 3) {
        stop("usage: device CERTIFICATE KEY [REGISTRATION-ID]", 0);
    }
    if (count > 3) {
        id = arguments[3];
    }
    if (id[0] == '\0' || strlen(id) >= TEXT_BYTES / 2) {
        stop("name the registration id: `birthmark env --format c --registration-id NAME`", 0);
    }
    if ((code = identity_load(&identity, BIRTHMARK_ROOT_CA, arguments[1], arguments[2])) != 0) {
        stop("the identity cannot be read", code);
    }
    register_device(&identity, id, hub, device_id);
    printf("assigned: %s at %s\n", device_id, hub);
    send_telemetry(&identity, hub, device_id);
    printf("%d messages sent\n", MESSAGES);
    identity_free(&identity);
    return 0;
}
