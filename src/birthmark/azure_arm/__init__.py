"""Azure Resource Manager as far as Microsoft.Devices needs it: what `azure-mgmt-iothub` and its like ask for.

    /subscriptions/{any}/resourceGroups/{any}/providers/Microsoft.Devices/provisioningServices/{name}/…
    /subscriptions/{any}/resourceGroups/{any}/providers/Microsoft.Devices/IotHubs/{name}/…

CA certificates with their proof of possession, services as they are, routes of hubs, keys of policies, names that are
taken. A thin shell over the rooms of DPS and the hubs, which hold all of it. Who asks is a person, by the token that
the SDK's credential hands out; shared keys open nothing here, as at Azure. A subscription and a resource group are
whatever the client says. Services are not made or removed by it, nor changed otherwise: `birthmark dps`, `birthmark
hub`.
"""
