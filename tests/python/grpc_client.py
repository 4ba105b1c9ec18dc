"""A gRPC client of Colophon that shares nothing with its own: Python's grpcio, with stubs made
from proto/ just before. It tries every method, health, reflection, deadlines and errors, and
prints as JSON what the test compares with REST.

Reads one JSON object from standard input: address, token, source, missing, target.
"""

import json
import sys
import time

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from colophon.v1 import freeze_pb2, freeze_pb2_grpc, release_pb2, release_pb2_grpc
from colophon.v1 import tag_move_pb2, tag_pb2, tag_pb2_grpc

SERVICES = [
    "colophon.v1.FreezeService",
    "colophon.v1.ReleaseService",
    "colophon.v1.TagService",
    "colophon.v1.UploadService",
]


def failure(call, *arguments, **options):
    """Makes a call that must fail; returns its status with the details decoded."""
    try:
        answer = call(*arguments, **options)
    except grpc.RpcError as error:
        shown = {"code": error.code().name, "message": error.details()}
        status = rpc_status.from_call(error)
        for detail in status.details if status else []:
            for kind in (
                error_details_pb2.ErrorInfo,
                error_details_pb2.BadRequest,
                error_details_pb2.RequestInfo,
                error_details_pb2.RetryInfo,
            ):
                message = kind()
                if detail.Unpack(message):
                    shown[kind.DESCRIPTOR.name] = message
        return shown
    raise AssertionError(f"was answered: {answer}")


def told(shown):
    """What both faces say of a failure."""
    info = shown["ErrorInfo"]
    assert info.domain == "colophon", info
    assert shown["RequestInfo"].request_id, shown
    field = info.metadata.get("field", "")
    if shown["code"] == "INVALID_ARGUMENT" and field:
        violation = shown["BadRequest"].field_violations[0]
        assert (violation.field, violation.description) == (field, shown["message"]), violation
    return {
        "code": shown["code"],
        "reason": info.reason,
        "field": field,
        "message": shown["message"],
        "remedy": info.metadata.get("remedy", ""),
    }


def main():
    given = json.load(sys.stdin)
    channel = grpc.insecure_channel(given["address"], options=[("grpc.enable_http_proxy", 0)])
    releases = release_pb2_grpc.ReleaseServiceStub(channel)
    tags = tag_pb2_grpc.TagServiceStub(channel)
    freezes = freeze_pb2_grpc.FreezeServiceStub(channel)
    who = [("authorization", "Bearer " + given["token"])]

    def target(repository=given["target"], unique=(), floating=()):
        return release_pb2.Target(
            repository=repository, unique_tags=unique, floating_tags=floating
        )

    def request(source=given["source"], targets=None, **fields):
        targets = targets or [target(unique=["1.0"], floating=["latest"])]
        return release_pb2.CreateReleaseRequest(source=source, targets=targets, **fields)

    # Every method, on a release that succeeds.
    key = {"idempotency_key": "python", "labels": {"team": "web"}, "reason": "f\u00fcr Montag"}
    release = releases.CreateRelease(request(**key), metadata=who, timeout=30)
    again = releases.CreateRelease(request(**key), metadata=who, timeout=30)
    assert again.id == release.id
    by_id = release_pb2.GetReleaseRequest(id=release.id)
    until = time.monotonic() + 60
    while not release.HasField("end_time"):
        assert time.monotonic() < until, release
        time.sleep(0.05)
        release = releases.GetRelease(by_id, metadata=who, timeout=30)
    assert release.state == release_pb2.RELEASE_STATE_SUCCEEDED, release
    assert release.reason == "f\u00fcr Montag" and release.labels["team"] == "web", release
    moved = [tag.state for tag in release.publications[0].tags]
    assert moved == [tag_move_pb2.TAG_MOVE_STATE_MOVED] * 2, release
    page = releases.ListReleases(
        release_pb2.ListReleasesRequest(
            page_size=1, label="team=web", states=[release_pb2.RELEASE_STATE_SUCCEEDED]
        ),
        metadata=who,
        timeout=30,
    )
    assert [one.id for one in page.releases] == [release.id], page
    reference = given["target"] + ":latest"
    tag = tags.GetTag(tag_pb2.GetTagRequest(reference=reference), metadata=who, timeout=30)
    assert tag.digest == release.digest, tag
    assert tag.certainty == tag_pb2.CERTAINTY_LAST_OBSERVED, tag
    then = tag_pb2.GetTagRequest(reference=reference, at=tag.entry.at)
    then = tags.GetTag(then, metadata=who, timeout=30)
    assert (then.digest, then.at) == (tag.digest, tag.entry.at), then
    moves = tags.ListTagMoves(
        tag_pb2.ListTagMovesRequest(reference=reference, include_intents=True),
        metadata=who,
        timeout=30,
    )
    assert [move.kind for move in moves.moves] == ["confirmed", "intent"], moves
    assert len(moves.moves[0].leaf_hash) == 32 and json.loads(moves.moves[0].body), moves

    # A plan shows that all is done, and can be followed; both need no more than that.
    plan = releases.PlanRelease(request(), metadata=who, timeout=30)
    unchanged = tag_move_pb2.TAG_MOVE_STATE_UNCHANGED
    assert plan.feasible and plan.digest == release.digest, plan
    assert [tag.outcome for tag in plan.publications[0].tags] == [unchanged] * 2, plan
    followed = releases.CreateRelease(request(plan=plan.id), metadata=who, timeout=30)
    assert followed.plan == plan.id, followed
    # A freeze holds until it is lifted.
    end = Timestamp()
    end.FromSeconds(int(time.time()) + 3600)
    freeze = freeze_pb2.CreateFreezeRequest(
        pattern=given["target"] + "/below", reason="a test", end_time=end
    )
    freeze = freezes.CreateFreeze(freeze, metadata=who, timeout=30)
    listed = freezes.ListFreezes(freeze_pb2.ListFreezesRequest(), metadata=who, timeout=30)
    assert list(listed.freezes) == [freeze] and freeze.active, listed
    lift = freeze_pb2.LiftFreezeRequest(id=freeze.id)
    assert not freezes.LiftFreeze(lift, metadata=who, timeout=30).active
    # Back to where it is: a release of its own.
    back = release_pb2.RollbackRequest(reference=reference, digest=release.digest, reason="a test")
    back = releases.Rollback(back, metadata=who, timeout=30)
    assert (back.purpose, back.digest) == ("rollback", release.digest), back

    # Errors: the same requests are made by REST.
    def create(*arguments, **fields):
        call = request(*arguments, **fields)
        return told(failure(releases.CreateRelease, call, metadata=who, timeout=30))

    get = release_pb2.GetReleaseRequest
    nobody_knows = [("authorization", "Bearer clp_nobody")]
    nobody = "019a4d1c-0000-7000-8000-000000000001"
    list_page = release_pb2.ListReleasesRequest(page_token="garbage")
    cancel = release_pb2.CancelReleaseRequest(id=release.id)
    future = tag_pb2.GetTagRequest(reference=reference)
    future.at.FromJsonString("2999-01-01T00:00:00Z")
    far = release_pb2.RollbackRequest(reference=reference, steps=9, reason="a test")
    endless = freeze_pb2.CreateFreezeRequest(pattern="*", reason="a test")
    settle = tag_pb2.SettleTagRequest(
        reference=reference, settled_as=tag_pb2.SETTLED_AS_MOVED, reason="a test"
    )
    errors = {
        "no source": create(source=""),
        "no reference": create(source="a b"),
        "unknown registry": create(targets=[target("elsewhere.example/app", unique=["1"])]),
        "missing source": create(source=given["missing"]),
        "key reused": create(idempotency_key="python"),
        "no release": told(failure(releases.GetRelease, get(id=nobody), metadata=who)),
        "no id": told(failure(releases.GetRelease, get(id="7"), metadata=who)),
        "page token": told(failure(releases.ListReleases, list_page, metadata=who)),
        "too late": told(failure(releases.CancelRelease, cancel, metadata=who)),
        "the future": told(failure(tags.GetTag, future, metadata=who)),
        "no such plan": create(plan="p2"),
        "too far back": told(failure(releases.Rollback, far, metadata=who)),
        "no end": told(failure(freezes.CreateFreeze, endless, metadata=who)),
        "nothing to settle": told(failure(tags.SettleTag, settle, metadata=who)),
        "nobody": told(failure(releases.GetRelease, by_id, metadata=nobody_knows)),
    }

    # A deadline that nobody can meet ends the call, here or there.
    late = failure(releases.CreateRelease, request(), metadata=who, timeout=0.000001)
    assert late["code"] == "DEADLINE_EXCEEDED", late
    # A message that is too large, and a method that is not there.
    large = request(reason="x" * (2 << 20))
    large = failure(releases.CreateRelease, large, metadata=who, timeout=30)
    assert large["code"] == "INVALID_ARGUMENT", large
    assert large["ErrorInfo"].reason == "INVALID_ARGUMENT", large
    for path in ("/colophon.v1.ReleaseService/Nothing", "/colophon.v1.Nothing/Get"):
        nowhere = channel.unary_unary(path)
        shown = failure(nowhere, b"", metadata=who, timeout=30)
        assert shown["code"] == "UNIMPLEMENTED", (path, shown)

    # Health and reflection, without a token.
    health = health_pb2_grpc.HealthStub(channel)
    for service in ["", *SERVICES]:
        check = health_pb2.HealthCheckRequest(service=service)
        answer = health.Check(check, timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, (service, answer)
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
    assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    unknown = health_pb2.HealthCheckRequest(service="x")
    assert failure(health.Check, unknown, timeout=30)["code"] == "NOT_FOUND"
    reflected = reflect(channel)

    print(json.dumps({"release": release.id, "errors": errors, "services": reflected}))


def reflect(channel):
    """The services that the server names; it describes ours as proto/ does."""
    reflection = Reflection(channel, "v1")
    services = sorted(reflection.list_services())
    for name, module in (("freeze", freeze_pb2), ("release", release_pb2), ("tag", tag_pb2)):
        described = descriptor_pb2.FileDescriptorProto.FromString(
            reflection.file(f"colophon/v1/{name}.proto")
        )
        own = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(own)
        described.ClearField("source_code_info")
        for message in described.message_type:
            # Python leaves out the names that follow from the fields' own.
            for field in [*message.field, *[f for n in message.nested_type for f in n.field]]:
                field.ClearField("json_name")
        assert described == own, (described, own)
    return services


class Reflection:
    """The reflection protocol, version v1 or v1alpha: the messages are the same."""

    def __init__(self, channel, version):
        self.call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )

    def ask(self, **request):
        request = reflection_pb2.ServerReflectionRequest(**request)
        return next(iter(self.call(iter([request]), timeout=30)))

    def list_services(self):
        answer = self.ask(list_services="")
        return [service.name for service in answer.list_services_response.service]

    def file(self, name):
        answer = self.ask(file_by_filename=name)
        return answer.file_descriptor_response.file_descriptor_proto[0]


if __name__ == "__main__":
    main()
