"""On a machine whose way out is a proxy: the cloud of a test is none of what is outside."""

import os


def test_clients_in_the_process_of_the_test(birthmark_cloud, aws_thing):
    assert os.environ["https_proxy"]
    (thing,) = birthmark_cloud.boto3().list_things()["things"]
    assert thing["thingName"] == aws_thing.name
    birthmark_cloud.azure_device("pump-1", auth="key", at="hub")
    assert birthmark_cloud.registry().get_device("pump-1").device_id == "pump-1"


def test_programs(birthmark_cloud, azure_device):
    assert azure_device.name in birthmark_cloud.birthmark("device", "ls", "--json")
    done = birthmark_cloud.run(
        "curl", "-sS", f"https://{birthmark_cloud.host}:8443/", environment=azure_device.environment()
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_machine_reaches_without_it_stays_so(birthmark_cloud):
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == f"localhost,127.0.0.1,{birthmark_cloud.host}"
    assert birthmark_cloud.environment()["no_proxy"] == os.environ["no_proxy"]
