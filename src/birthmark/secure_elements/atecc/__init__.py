"""Microchip ATECC608 through cryptoauthlib over I2C, for systems without its PKCS#11 library.

    compressed_certificate  a certificate in the 72 bytes of a slot: decode, encode
    certificate_rebuild     reconstructs the complete certificate with templates that are data
    chip                    commands through the library: serial number, keys, signatures, slots
    emulated_pkcs11_token   the same as token objects, so that every element command works
    simulator               a simulated ATECC608 that answers the library's packets
    simulator_hal           connects the simulator to the library in place of the bus

`cryptoauthlib` is an optional package: Microchip licenses it for use with its own chips only.
"""
