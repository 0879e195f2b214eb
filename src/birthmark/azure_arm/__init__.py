"""Azure Resource Manager API of Microsoft.Devices, as used by `azure-mgmt-iothub` and similar SDKs.

    /subscriptions/{any}/resourceGroups/{any}/providers/Microsoft.Devices/provisioningServices/{name}/…
    /subscriptions/{any}/resourceGroups/{any}/providers/Microsoft.Devices/IotHubs/{name}/…

It covers CA certificates with proof of possession, service descriptions, hub routes, policy keys and name availability.
It is a thin layer over the DPS and IoT Hub packages, which hold all state. Callers are users with the access token of
the SDK's credential; symmetric keys grant no access here, as at Azure. Any subscription and resource group is valid.
Services cannot be created, deleted or changed otherwise through it; use `birthmark dps` and `birthmark hub`.
"""
