"""What was decided for each pool, over gRPC: KEDA's external push scaler.

As the endpoint over HTTP it reads what the leading controller has published, and decides nothing. A pool that wakes is
pushed to KEDA at once, which would otherwise look after some seconds. An answer that nobody stands behind is an error:
KEDA then keeps what it has, or falls back.

Which pool a ScaledObject is for, its trigger's metadata say: `pool: tools`.
Protocol: https://keda.sh/docs/latest/concepts/external-scalers/
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from typing import Any, Final

from agentq.core.errors import Unavailable, UsageError
from agentq.core.sizing import Decision
from agentq.fleet.published import NoController, Published

PUSH_S: Final = 0.25
"""Between two looks of a stream."""

METRIC: Final = "desired_workers"

_LONGEST: Final = 64 * 1024
"""Bytes of a request: KEDA's have some hundred."""

_START_S: Final = 10.0


class PushServer:
    """A server of the service `externalscaler.ExternalScaler`, in a thread of its own.

    Args:
        published: the decisions.
        host, port: where it listens; 0 for a free port.

    Raises UsageError when it cannot listen there, or the extra is not installed.
    """

    def __init__(self, published: Published, *, host: str, port: int) -> None:
        # The local driver forks: gRPC's own handlers would only get in the way of that.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        try:
            import grpc.aio  # noqa: F401 — told at once, not by the thread

            from agentq.fleet import keda_messages  # noqa: F401 — the same
        except ImportError as error:
            raise UsageError(
                "KEDA is served over gRPC, which is not installed: pip install 'agentq-celery[keda]'."
            ) from error
        self._published = published
        self._host, self._wanted = host, port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._listening = threading.Event()
        self._failed: str | None = None
        self._thread = threading.Thread(target=self._main, name="agentq-push", daemon=True)
        self.port = port
        """Where it listens, once it has started."""

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()
        self._listening.wait(_START_S)
        if self._failed is not None:
            self._thread.join()
            raise UsageError(f"KEDA cannot be served at {self._host}:{self._wanted}: {self._failed}.")

    def stop(self) -> None:
        """Serve no more; streams end."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._failed = f"{type(error).__name__}: {error}"
        finally:
            self._listening.set()

    async def _serve(self) -> None:
        import grpc.aio

        self._loop = asyncio.get_running_loop()
        # Two that share a port would each get half of the calls, and neither would know.
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _LONGEST)])
        server.add_generic_rpc_handlers((_handlers(self),))
        place = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self.port = server.add_insecure_port(f"{place}:{self._wanted}")
            if not self.port:
                raise RuntimeError
        except RuntimeError:
            self._failed = "something else listens there, or it is no address of this machine"
            return
        await server.start()
        self._listening.set()
        await self._stopping.wait()
        await server.stop(grace=None)

    # -- the service

    async def is_active(self, request: Any, context: Any) -> Any:
        """Whether the pool is to have a worker at all."""
        from agentq.fleet.keda_messages import IsActiveResponse

        return IsActiveResponse(result=(await self._decision(request, context)).replicas > 0)

    async def stream_is_active(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """The same whenever it changes; nothing while nobody knows."""
        from agentq.fleet.keda_messages import IsActiveResponse

        pool, told = await _pool_of(request, context), None
        while not self._stopping.is_set():
            try:
                decision = await self._read(pool)
            except (Unavailable, NoController, KeyError):
                decision = None
            if decision is not None and (decision.replicas > 0) is not told:
                told = decision.replicas > 0
                yield IsActiveResponse(result=told)
            await asyncio.sleep(PUSH_S)

    async def get_metric_spec(self, request: Any, context: Any) -> Any:
        """One replica for each worker that is desired."""
        from agentq.fleet.keda_messages import GetMetricSpecResponse

        await _pool_of(request, context)
        # Both forms: versions of KEDA before 2.9 read the whole number.
        return GetMetricSpecResponse(metricSpecs=[{"metricName": METRIC, "targetSize": 1, "targetSizeFloat": 1.0}])

    async def get_metrics(self, request: Any, context: Any) -> Any:
        """How many there are to be."""
        from agentq.fleet.keda_messages import GetMetricsResponse

        replicas = (await self._decision(request.scaledObjectRef, context)).replicas
        value = {"metricName": request.metricName or METRIC, "metricValue": replicas, "metricValueFloat": replicas}
        return GetMetricsResponse(metricValues=[value])

    async def _decision(self, reference: Any, context: Any) -> Decision:
        import grpc

        pool = await _pool_of(reference, context)
        try:
            return await self._read(pool)
        except KeyError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error.args[0]))
        except (Unavailable, NoController) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        raise AssertionError("a call that is aborted does not go on")

    async def _read(self, pool: str) -> Decision:
        return (await asyncio.to_thread(self._published.now)).decision_of(pool)


async def _pool_of(reference: Any, context: Any) -> str:
    import grpc

    pool = reference.scalerMetadata.get("pool", "")
    if not pool:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f'the trigger of ScaledObject "{reference.name}" does not say its pool: metadata: {{pool: tools}}',
        )
    return str(pool)


def _handlers(server: PushServer) -> Any:
    import grpc

    from agentq.fleet import keda_messages as messages

    def terms(request: Any, response: Any) -> dict[str, Any]:
        return {"request_deserializer": request.FromString, "response_serializer": response.SerializeToString}

    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    reference = messages.ScaledObjectRef
    return grpc.method_handlers_generic_handler(
        messages.SERVICE,
        {
            "IsActive": unary(server.is_active, **terms(reference, messages.IsActiveResponse)),
            "StreamIsActive": stream(server.stream_is_active, **terms(reference, messages.IsActiveResponse)),
            "GetMetricSpec": unary(server.get_metric_spec, **terms(reference, messages.GetMetricSpecResponse)),
            "GetMetrics": unary(server.get_metrics, **terms(messages.GetMetricsRequest, messages.GetMetricsResponse)),
        },
    )
