"""Which image serves a repository, and how it comes to this machine."""

from __future__ import annotations

from typing import Any, Final

from builder.errors import MachineError, ServeError
from builder.log import get_logger
from builder.servers.docker_pull import PullError, pull
from builder.servers.needs import Needs

OFFICIAL: Final = "nvcr.io/nvidia/tritonserver:{release}-py3"
SLIM: Final = "build-repo/tritonserver-cpu:{release}"
"""What `make image` makes."""
BACKENDS_LABEL: Final = "build-repo.backends"
IN_EVERY_IMAGE: Final = ("python",)

Client = Any
"""docker.DockerClient, which brings no types."""


def choose_image(client: Client, release: str, wanted: str | None, needs: Needs) -> str:
    """The image to run, on this machine when this returns.

    The one asked for; else the release's official one where it is here; else the slim one where that is here and has
    every backend; else the official one, pulled.

    Raises:
        MachineError: it is not here and cannot be pulled.
        ServeError: it lacks a backend that the repository needs.
    """
    official = OFFICIAL.format(release=release)
    name = wanted or (official if _find(client, official) else _slim(client, release, needs)) or official
    slim_instead = "" if wanted else f"make image RELEASE={release} in a checkout makes a slim one for CPUs; "
    image = _find(client, name) or _pull(client, name, slim_instead)
    lacking = _lacking(image, needs)
    if lacking:
        listed = ", ".join(f"{word} (model {needs.backends[word]})" for word in lacking)
        msg = f"image {name} has no backend {listed}"
        raise ServeError(msg, remedy=f"--image {official} has every backend of the release")
    if not wanted:
        get_logger().info("image %s%s", name, "" if name == official else f", since {official} is not here")
    return name


def _slim(client: Client, release: str, needs: Needs) -> str:
    name = SLIM.format(release=release)
    image = _find(client, name)
    return name if image is not None and not needs.gpu and not _lacking(image, needs) else ""


def _find(client: Client, name: str) -> Any:  # noqa: ANN401 - docker's own object
    from docker.errors import ImageNotFound

    try:
        return client.images.get(name)
    except ImageNotFound:
        return None


def _pull(client: Client, name: str, instead: str) -> Any:  # noqa: ANN401 - docker's own object
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    get_logger().info("pulling %s, which may take long: official images are over 10 GB", name)
    try:
        return pull(client, name)
    except (DockerException, RequestException, PullError) as error:
        reason = getattr(error, "explanation", None) or str(error)
        msg = f"image {name} is not on this machine and cannot be pulled: {reason}"
        raise MachineError(msg, remedy=f"{instead}docker pull {name} shows all of the trouble") from error


def _lacking(image: Any, needs: Needs) -> tuple[str, ...]:  # noqa: ANN401 - docker's own object
    """Backends that an image of ours says it does not have; other images say nothing."""
    label = (image.labels or {}).get(BACKENDS_LABEL)
    if label is None:
        return ()
    return tuple(word for word in needs.backends if word not in (*label.split(), *IN_EVERY_IMAGE))
