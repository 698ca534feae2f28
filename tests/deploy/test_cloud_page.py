"""The page of the cloud makes whatever its later commands and the files of the deployment use, before they use it."""

import re

from support.manifests import DEPLOY, load

from fashion.home import REPOSITORY

PAGE = (REPOSITORY / "docs" / "how-to" / "cloud.md").read_text()
WORKFLOWS = "\n".join(file.read_text() for file in (REPOSITORY / ".github" / "workflows").glob("*.yml"))
BUCKETS = r"gs://[A-Z]+(?:-\w+)*"
ACCOUNTS = r"([\w-]+)@(?:P|PROJECT)\.iam\.gserviceaccount\.com"


def made(pattern: str) -> dict[str, int]:
    """What a command of the page creates -> where."""
    return {name: each.start() for each in re.finditer(pattern, PAGE) for name in each[1].split()}


def test_buckets_are_made_before_anything_uses_them() -> None:
    buckets = made(rf"gcloud storage buckets create ((?:{BUCKETS} )+)")
    for each in re.finditer(BUCKETS, PAGE):
        assert buckets[each[0]] < each.start(), each[0]
    for name in re.findall(BUCKETS, (DEPLOY / "cloudrun.yaml").read_text()):
        assert name.replace("PROJECT", "P") in buckets


def test_accounts_are_made_before_anything_uses_them() -> None:
    accounts = made(r"gcloud iam service-accounts create (\S+)")
    for each in re.finditer(ACCOUNTS, PAGE):
        assert accounts[each[1]] < each.start(), each[0]
    assert set(re.findall(ACCOUNTS, (DEPLOY / "cloudrun.yaml").read_text())) == {"fashion-classifier"}


def test_every_account_is_granted_something() -> None:
    for name in made(r"gcloud iam service-accounts create (\S+)"):
        assert re.search(rf"add-iam-policy-binding [^\n]*(\\\n)?[^\n]*--member serviceAccount:{name}@", PAGE), name


def test_what_the_service_uses_is_made_and_granted_to_it() -> None:
    (container,) = load("cloudrun.yaml")["spec"]["template"]["spec"]["containers"]
    member = "--member serviceAccount:fashion-classifier@P.iam.gserviceaccount.com"
    for each in container["env"]:
        if "valueFrom" in each:
            name = each["valueFrom"]["secretKeyRef"]["name"]
            assert f"gcloud secrets create {name} " in PAGE
            grant = f"gcloud secrets add-iam-policy-binding {name} --role roles/secretmanager.secretAccessor"
        elif each["value"].startswith("gs://"):
            bucket = each["value"].replace("PROJECT", "P")
            grant = f"gcloud storage buckets add-iam-policy-binding {bucket} --role roles/storage.objectViewer"
        else:
            grant = "gcloud projects add-iam-policy-binding P --role roles/datastore.user"
        assert f"{grant} \\\n    {member}" in PAGE


def test_the_service_is_reached_once_it_is_made() -> None:
    reached = "gcloud run services add-iam-policy-binding fashion-classifier --region"
    for text in (PAGE, WORKFLOWS):
        assert text.index("gcloud run services replace") < text.index(reached)


def test_the_page_names_every_variable_of_the_workflows() -> None:
    names = set(re.findall(r"vars\.(\w+)", WORKFLOWS))
    assert len(names) > 5
    assert {name for name in names if f"`{name}" not in PAGE} == set()
