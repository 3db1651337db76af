"""A plant behind a Redfish service: the tree fills its gaps when a resource is asked for."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from heatpool_sim.devices.redfish_service import RedfishService
from heatpool_sim.devices.redfish_template import Template
from heatpool_sim.devices.redfish_tree import Resource
from heatpool_sim.ports import Address, Twin


class PlantTree(ABC):
    """The resources of a device as its plant is now."""

    def __init__(self, plant: Twin, template: Template, identity: dict[str, Any]) -> None:
        self._plant = plant
        self._template = template
        self._identity = identity

    @property
    def paths(self) -> list[str]:
        """Where the resources are."""
        return self._template.paths

    @property
    def figure_names(self) -> frozenset[str]:
        """Every figure that a resource has a gap for."""
        return self._template.figure_names

    @abstractmethod
    def figures(self) -> dict[str, Any]:
        """All figures as they are now."""

    def get(self, path: str) -> Resource | None:
        """The resource as it is now; None where there is none."""
        return self._template.filled(path, self.figures()) if self._template.has(path) else None

    def patch(self, path: str, change: Resource) -> Resource | None:
        """None: nothing of this device can be set from outside, unless it says otherwise."""
        return None


class RedfishDevice(ABC):
    """One device behind its own port; without a user everybody is let in."""

    def __init__(
        self, *, port: int = 0, user: str = "", password: str = "", site_id: str = "site"
    ) -> None:
        self._port = port
        self._user = user
        self._password = password
        self._site_id = site_id

    @abstractmethod
    def tree(self, plant: Twin, *, site_id: str, user: str) -> PlantTree:
        """What the device shows of a plant."""

    @asynccontextmanager
    async def serve(self, plant: Twin) -> AsyncIterator[Address]:
        """Answers at the address for as long as the context is open.

        Raises:
            HeatpoolError: the port is taken.
        """
        service = RedfishService(
            self.tree(plant, site_id=self._site_id, user=self._user),
            port=self._port,
            user=self._user,
            password=self._password,
            faults=lambda: plant.faults,
        )
        async with service.serve() as address:
            yield address
