"""`regulars keys`: fresh keys for a tenant, for the development issuer, under another master key."""

import asyncio
from typing import Annotated, Any

import typer

from libs import config, issuer
from libs.run import terminal
from libs.run.commands.access import tenant_id
from libs.run.commands.calls import ask, operator_token
from libs.run.stack.faults import BadConfiguration, NotHealthy
from libs.run.stack.home import Home
from libs.run.terminal import Json, err, faults_told, out, print_json, say

app = typer.Typer(no_args_is_help=True, help="Change keys while everybody works on.")
ROTATE = "/regulars.customers.v1.CustomersService/RotateKeys"
GET_JOB = "/regulars.customers.v1.JobsService/GetJob"
QUEUED, RUNNING, SUCCEEDED = "JOB_STATE_QUEUED", "JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"


@app.command()
def rotate(
    tenant: Annotated[str, typer.Option(help="Id or slug.")],
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the old keys are gone.")] = False,
    as_json: Json = False,
) -> None:
    """Give a tenant new keys and destroy the old ones, as a job of some minutes. Prints its id."""
    with faults_told():
        job = terminal.run(_rotate(terminal.settings(), tenant, wait))
    if as_json:
        print_json(job)
    else:
        say(f"Job {job['state'].removeprefix('JOB_STATE_').lower()}:")
        out.print(job["id"], markup=False)


@app.command("issuer")
def rotate_issuer() -> None:
    """Make a new key for the development issuer. Tokens of the old one hold until they expire."""
    with faults_told():
        found = terminal.settings()
        if found.oidc_issuer:
            raise BadConfiguration("REGULARS_OIDC_ISSUER is set: its keys are rotated there.")
        say(f"Public keys: {issuer.make_issuer(found.home.resolve(), rotate=True)}")


@app.command()
def rewrap(as_json: Json = False) -> None:
    """Wrap all tenants' keys by the first of the master keys, so that the others may go."""
    from libs.crypto import BadMasterKey, FolderKeystore, MasterKeys

    with faults_told():
        found = terminal.settings()
        own = Home(found.home.resolve()).secrets / "master.key"
        text = found.master_key or (own.read_text() if own.exists() else "")
        try:
            master = MasterKeys(text)
        except BadMasterKey as error:
            raise BadConfiguration(str(error)) from None
        keystore = found.keystore.resolve()
        services = sorted(folder.name for folder in keystore.iterdir()) if keystore.exists() else []
        counts = {name: FolderKeystore(keystore, name, master).rewrap() for name in services}
    if as_json:
        print_json({"rewrapped": counts})
    else:
        say(f"{sum(counts.values())} keys are wrapped anew.")


async def _rotate(found: config.Settings, tenant: str, wait: bool) -> dict[str, Any]:
    whose = await tenant_id(found, tenant)
    answer = await ask(found, ROTATE, {}, operator_token(found, whose))
    job = {"id": answer.job_id, "state": QUEUED}
    if not wait:
        return job
    with err.status("Rotating …") as shown:
        while job["state"] in (QUEUED, RUNNING):
            await asyncio.sleep(1)
            now = await ask(found, GET_JOB, {"id": answer.job_id}, operator_token(found, whose, "admin"))
            job["state"] = (
                type(now).DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number[now.state].name
            )
            shown.update(f"Rotating … {now.progress_done} rows")
    if job["state"] != SUCCEEDED:
        raise NotHealthy(f"The job {answer.job_id} ended as {job['state']}.")
    return job
