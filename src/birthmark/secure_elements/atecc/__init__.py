"""Microchip's ATECC608 by cryptoauthlib over I2C, where its PKCS#11 library is not built.

compressed_certificate  a certificate in the 72 bytes of a slot: read, written
certificate_rebuild  the whole certificate again from them, by templates that are data
chip         the chip's commands by the library: serial, keys, signatures, slots
token        the same as objects of a token, so that every element command works
simulator    a chip of software: answers the library's packets, knows no library
hal          puts the software chip where the library expects the bus

`cryptoauthlib` is an optional package: Microchip licenses it for use with its own chips only.
"""
