"""Google's client against a server that speaks Cloud Run's messages: what is changed, and what happens on errors."""

import sys

import grpc
import pytest
from support.cloudrun import PATH, SERVICE

from fashion.deployment.canary import CanaryRevision, Conflict, RevisionFailed, TrafficTarget
from fashion.deployment.cloudrun import CloudRun, identity_token
from fashion.deployment.rollout import RolloutError

from .conftest import NEW_IMAGE, Cloud

FIRST = f"{SERVICE}-00001-abc"


def candidate(cloud: Cloud, **options: float) -> CanaryRevision:
    return CanaryRevision(cloud.client(**options), SERVICE, version=2, image=NEW_IMAGE)  # type: ignore[arg-type]


def test_a_service_that_follows_its_latest_revision_is_read(cloud: Cloud) -> None:
    service = cloud.client().read()
    assert (service.name, service.traffic()) == (SERVICE, {FIRST: 100})
    assert service.notes["team"] == "shop"


class TestNewRevision:
    """What `prepare` makes."""

    def test_has_no_traffic_and_an_address_of_its_own(self, cloud: Cloud) -> None:
        revision = candidate(cloud)
        assert revision.prepare() == 0
        assert cloud.state.traffic() == {FIRST: 100}
        assert revision.url() == cloud.new.url
        assert all(each == {FIRST: 100} for each in cloud.state.history)

    def test_differs_from_the_latest_in_its_image_only(self, cloud: Cloud) -> None:
        before = cloud.state.services[PATH].template
        candidate(cloud).prepare()
        after = cloud.state.services[PATH].template
        assert [each.image for each in after.containers] == ["proxy:1", NEW_IMAGE]
        assert after.service_account == before.service_account
        assert after.containers[1].env == before.containers[1].env
        assert cloud.state.notes()["team"] == "shop"

    def test_is_found_by_a_retried_step(self, cloud: Cloud) -> None:
        candidate(cloud).prepare()
        count = len(cloud.state.revisions)
        candidate(cloud).prepare()
        assert len(cloud.state.revisions) == count == 2

    def test_is_found_if_the_answer_to_its_making_was_lost(self, cloud: Cloud) -> None:
        cloud.state.lost = ["UpdateService"]
        assert candidate(cloud).prepare() == 0
        assert len(cloud.state.revisions) == 2

    def test_that_does_not_become_ready_gets_no_traffic(self, cloud: Cloud) -> None:
        cloud.state.broken = {NEW_IMAGE: "The container failed to start and listen on the port 3000."}
        with pytest.raises(RevisionFailed, match=r"did not become ready and got no traffic: The container failed to"):
            candidate(cloud).prepare()
        assert cloud.state.traffic() == {FIRST: 100}

    def test_is_made_anew_after_the_cause_is_mended(self, cloud: Cloud) -> None:
        cloud.state.broken = {NEW_IMAGE: "Image not found."}
        with pytest.raises(RevisionFailed):
            candidate(cloud).prepare()
        cloud.state.broken = {}
        revision = candidate(cloud)
        assert revision.prepare() == 0
        assert revision.name.endswith("-2")
        assert revision.url() == cloud.new.url


def test_shares_are_set_and_given_back(cloud: Cloud) -> None:
    revision = candidate(cloud)
    revision.prepare()
    revision.set_share(25)
    assert cloud.state.traffic() == {FIRST: 75, revision.name: 25}
    revision.step_back("too slow")
    assert cloud.state.traffic() == {FIRST: 100}
    assert cloud.state.notes()["fashion-rollout-reason"] == "too slow"


def test_an_operation_is_waited_for(cloud: Cloud) -> None:
    cloud.state.polls = 5
    revision = candidate(cloud)
    revision.prepare()
    revision.set_share(100)
    assert cloud.state.calls.count("GetOperation") >= 15
    assert cloud.state.traffic() == {revision.name: 100}


class TestErrors:
    """Each is one sentence; traffic stays as it was last set."""

    @pytest.mark.parametrize("method", ["GetService", "ListRevisions", "UpdateService"])
    def test_denied_permission_names_the_roles(self, cloud: Cloud, method: str) -> None:
        cloud.state.faults[method] = [(grpc.StatusCode.PERMISSION_DENIED, f"Permission 'run.{method}' denied")]
        with pytest.raises(RolloutError, match=r"Permission 'run\..*' denied\): it needs roles/run\.developer"):
            candidate(cloud).prepare()
        assert cloud.state.history == [{FIRST: 100}]

    @pytest.mark.parametrize("method", ["GetService", "ListRevisions", "UpdateService", "GetOperation"])
    def test_a_call_is_repeated_while_cloud_run_is_unavailable(self, cloud: Cloud, method: str) -> None:
        cloud.state.faults[method] = [(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable")] * 2
        cloud.state.polls = 1
        revision = candidate(cloud)
        assert revision.prepare() == 0
        assert cloud.state.faults[method] == []

    def test_an_outage_ends_with_what_to_do(self, cloud: Cloud) -> None:
        cloud.state.faults["UpdateService"] = [(grpc.StatusCode.UNAVAILABLE, "no connection")] * 1000
        with pytest.raises(RolloutError, match="Cloud Run does not answer .*deploy again to go on from there"):
            candidate(cloud, operation_seconds=0.3).prepare()

    def test_an_operation_without_end_says_how_to_go_on(self, cloud: Cloud) -> None:
        cloud.state.polls = 10_000
        with pytest.raises(RolloutError, match=r"has not ended after 0 s: deploy again to go on"):
            candidate(cloud, operation_seconds=0.2).prepare()
        cloud.state.polls, cloud.state.operations = 0, {}
        with pytest.raises(RolloutError, match="was still being changed after 0 s"):
            candidate(cloud, operation_seconds=0.1).prepare()
        cloud.state.services[PATH].reconciling = False
        assert candidate(cloud).prepare() == 0
        assert len(cloud.state.revisions) == 2

    @pytest.mark.parametrize("place", [{"project": "other"}, {"region": "us-east1"}])
    def test_a_wrong_place_names_the_settings(self, cloud: Cloud, place: dict[str, str]) -> None:
        with pytest.raises(
            RolloutError, match=r"has no service fashion-classifier in region .*correct deploy\.project"
        ):
            cloud.client(**place).read()  # type: ignore[arg-type]

    def test_what_cloud_run_refuses_is_repeated_in_its_words(self, cloud: Cloud) -> None:
        service = cloud.client().read()
        with pytest.raises(RolloutError, match="cannot be changed: traffic must add up to 100 percent"):
            cloud.client().set_traffic(service, [TrafficTarget(FIRST, 40)], {})

    def test_an_update_based_on_an_old_read_is_a_conflict(self, cloud: Cloud) -> None:
        client = cloud.client()
        service = client.read()
        client.set_traffic(service, service.targets, {"somebody": "else"})
        with pytest.raises(Conflict, match="was specified but current version is"):
            client.set_traffic(service, service.targets, {})

    def test_an_update_that_another_overtakes_is_made_on_top_of_it(self, cloud: Cloud) -> None:
        def label() -> None:
            cloud.state.before_update = lambda: None
            cloud.state.services[PATH].labels["cost-centre"] = "7"
            cloud.state.services[PATH].etag = '"changed"'

        revision = candidate(cloud)
        revision.prepare()
        cloud.state.before_update = label
        revision.set_share(5)
        assert cloud.state.services[PATH].labels["cost-centre"] == "7"
        assert cloud.state.traffic() == {FIRST: 95, revision.name: 5}

    def test_without_credentials_it_names_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
        monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        with pytest.raises(RolloutError, match="run `gcloud auth application-default login`"):
            CloudRun("shop", "europe-west1", SERVICE, operation_seconds=1).read()

    def test_without_the_package_it_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "google.cloud.run_v2", None)
        monkeypatch.delattr("google.cloud.run_v2", raising=False)
        with pytest.raises(RolloutError, match=r"install the extra `fashion\[cloudrun\]`"):
            CloudRun("shop", "europe-west1", SERVICE, operation_seconds=1).read()

    def test_without_a_service_account_there_is_no_identity_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        with pytest.raises(
            RolloutError, match=r"there is no identity token for https://.*deploy\.identity_token=false"
        ):
            identity_token("https://service.example")
