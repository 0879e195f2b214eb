/* MQTT 3.1.1 (OASIS), as much of it as a device needs that registers and sends: packets to bytes and back.
 *
 * No sockets, no memory of its own: the caller gives the buffers and moves the bytes. */
#ifndef MQTT_H
#define MQTT_H

#include <stddef.h>
#include <stdint.h>

enum { MQTT_CONNACK = 2, MQTT_PUBLISH = 3, MQTT_PUBACK = 4, MQTT_SUBACK = 9 };

/* Each writes a packet and returns its length, 0 where it does not fit. */
size_t mqtt_connect(uint8_t *out, size_t size, const char *client_id, const char *username, uint16_t keep_alive_s);
size_t mqtt_subscribe(uint8_t *out, size_t size, uint16_t packet_id, const char *filter);
size_t mqtt_publish(uint8_t *out, size_t size, uint16_t packet_id, const char *topic, const void *payload, size_t length);
size_t mqtt_puback(uint8_t *out, size_t size, uint16_t packet_id);
size_t mqtt_disconnect(uint8_t *out, size_t size);

typedef struct {
    int type;
    uint16_t packet_id; /* of PUBACK, SUBACK and a PUBLISH of QoS 1; else 0 */
    int code;           /* of CONNACK and SUBACK */
    const char *topic;  /* of PUBLISH: not ended by a zero byte */
    size_t topic_length;
    const uint8_t *payload;
    size_t payload_length;
} mqtt_packet;

/* Reads one packet from the beginning of a buffer. Returns the bytes it has, 0 where more are needed, -1 for what is no
 * MQTT. The packet points into the buffer. */
long mqtt_parse(const uint8_t *data, size_t length, mqtt_packet *packet);

#endif
