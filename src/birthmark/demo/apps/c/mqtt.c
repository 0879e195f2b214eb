#include "mqtt.h"

#include <string.h>

enum { HEADER_BYTES = 5, CLEAN_SESSION = 0x02, HAS_USERNAME = 0x80, QOS_1 = 1 };

typedef struct {
    uint8_t *at, *end;
    int is_full;
} writer;

static void put(writer *out, const void *bytes, size_t length) {
    if ((size_t)(out->end - out->at) < length) {
        out->is_full = 1;
        return;
    }
    if (length > 0) {
        memcpy(out->at, bytes, length);
    }
    out->at += length;
}

static void put_byte(writer *out, unsigned value) {
    uint8_t byte = (uint8_t)value;
    put(out, &byte, 1);
}

static void put_number(writer *out, unsigned value) {
    put_byte(out, value >> 8);
    put_byte(out, value & 0xFF);
}

static void put_text(writer *out, const char *text) { /* section 1.5.3: two bytes of length */
    size_t length = strlen(text);
    if (length > 0xFFFF) {
        out->is_full = 1;
        return;
    }
    put_number(out, (unsigned)length);
    put(out, text, length);
}

/* The body is written behind the room of the longest header, which then goes right in front of it (section 2.2.3). */
static writer begin(uint8_t *out, size_t size) {
    writer body = {out, out + size, 0};
    uint8_t room[HEADER_BYTES] = {0};
    put(&body, room, sizeof room);
    return body;
}

static size_t finish(uint8_t *out, const writer *body, unsigned first_byte) {
    uint8_t header[HEADER_BYTES];
    size_t used = 0, length = (size_t)(body->at - out) - HEADER_BYTES, left = length;
    if (body->is_full || length > 268435455u) {
        return 0;
    }
    header[used++] = (uint8_t)first_byte;
    do {
        header[used] = left % 128;
        left /= 128;
        header[used++] |= left > 0 ? 0x80 : 0;
    } while (left > 0);
    memmove(out + used, out + HEADER_BYTES, length);
    memcpy(out, header, used);
    return used + length;
}

size_t mqtt_connect(uint8_t *out, size_t size, const char *client_id, const char *username, uint16_t keep_alive_s) {
    writer body = begin(out, size);
    put_text(&body, "MQTT");
    put_byte(&body, 4); /* section 3.1.2.2 */
    put_byte(&body, CLEAN_SESSION | HAS_USERNAME);
    put_number(&body, keep_alive_s);
    put_text(&body, client_id);
    put_text(&body, username);
    return finish(out, &body, 0x10);
}

size_t mqtt_subscribe(uint8_t *out, size_t size, uint16_t packet_id, const char *filter) {
    writer body = begin(out, size);
    put_number(&body, packet_id);
    put_text(&body, filter);
    put_byte(&body, QOS_1);
    return finish(out, &body, 0x82);
}

size_t mqtt_publish(uint8_t *out, size_t size, uint16_t packet_id, const char *topic, const void *payload, size_t length) {
    writer body = begin(out, size);
    put_text(&body, topic);
    put_number(&body, packet_id);
    put(&body, payload, length);
    return finish(out, &body, 0x30 | QOS_1 << 1);
}

size_t mqtt_puback(uint8_t *out, size_t size, uint16_t packet_id) {
    writer body = begin(out, size);
    put_number(&body, packet_id);
    return finish(out, &body, 0x40);
}

size_t mqtt_disconnect(uint8_t *out, size_t size) {
    writer body = begin(out, size);
    return finish(out, &body, 0xE0);
}

static unsigned number_at(const uint8_t *data) { return (unsigned)data[0] << 8 | data[1]; }

static int parse_publish(const uint8_t *body, size_t length, unsigned qos, mqtt_packet *packet) {
    size_t start;
    if (length < 2 || qos > QOS_1) {
        return -1;
    }
    packet->topic_length = number_at(body);
    start = 2 + packet->topic_length + (qos ? 2 : 0);
    if (start > length) {
        return -1;
    }
    packet->topic = (const char *)body + 2;
    packet->packet_id = qos ? (uint16_t)number_at(body + start - 2) : 0;
    packet->payload = body + start;
    packet->payload_length = length - start;
    return 0;
}

static int parse_body(unsigned first_byte, const uint8_t *body, size_t length, mqtt_packet *packet) {
    switch (packet->type) {
    case MQTT_CONNACK:
        packet->code = length == 2 ? body[1] : -1;
        return length == 2 ? 0 : -1;
    case MQTT_PUBLISH:
        return parse_publish(body, length, first_byte >> 1 & 3, packet);
    case MQTT_PUBACK:
    case MQTT_SUBACK:
        if (length < 2) {
            return -1;
        }
        packet->packet_id = (uint16_t)number_at(body);
        packet->code = length > 2 ? body[2] : 0;
        return 0;
    default: /* PINGRESP, and what a server of 3.1.1 does not send */
        return 0;
    }
}

long mqtt_parse(const uint8_t *data, size_t length, mqtt_packet *packet) {
    size_t used = 1, body = 0, factor = 1;
    memset(packet, 0, sizeof *packet);
    do {
        if (used == HEADER_BYTES) {
            return -1;
        }
        if (used >= length) {
            return 0;
        }
        body += (data[used] & 0x7F) * factor;
        factor *= 128;
    } while (data[used++] & 0x80);
    if (length - used < body) {
        return 0;
    }
    packet->type = data[0] >> 4;
    return parse_body(data[0], data + used, body, packet) == 0 ? (long)(used + body) : -1;
}
