"""A W&B server that takes artifacts as well, and remembers which run used which."""

from __future__ import annotations

from typing import Any

from .wandb_server import PROJECT, WandbServer

WHERE = {**PROJECT, "internalId": "i", "entity": {"id": "e", "name": "me"}}


class ArtifactServer(WandbServer):
    """`artifacts`: type by name, of all that were logged, in order. `used`: (run id, artifact name) by use."""

    def __init__(self) -> None:
        super().__init__()
        self.artifacts: dict[str, str] = {}
        self.digests: dict[str, list[str]] = {}
        self.used: list[tuple[str, str]] = []

    def answer(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        if name == "ArtifactType":
            return {"project": {"artifact": None}}
        if name == "CreateArtifact":
            made = variables["input"]
            self.artifacts[made["artifactCollectionName"]] = made["artifactTypeName"]
            self.digests.setdefault(made["artifactCollectionName"], []).append(made["digest"])
            collection = {"id": "c", "latestArtifact": None}
            artifact = {"id": made["artifactCollectionName"], "state": "COMMITTED", "artifactSequence": collection}
            return {"createArtifact": {"artifact": artifact}}
        if name == "ArtifactByID":
            return {"artifact": self._artifact(variables["id"])}
        if name == "ArtifactMembershipByName":
            return {"project": {"artifactCollectionMembership": self._membership(variables["name"].split(":")[0])}}
        if name == "UseArtifact":
            self.used.append((variables["runName"], variables["artifactID"]))
            return {"useArtifact": {"artifact": self._artifact(variables["artifactID"])}}
        return super().answer(name, variables)

    def _membership(self, name: str) -> dict[str, Any] | None:
        if name not in self.artifacts:
            return None
        dated = {"id": "m", "versionIndex": 0, "createdAt": "2026-01-01T00:00:00", "aliases": []}
        where = {"artifactCollection": _collection(name), "artifact": self._artifact(name)}
        return {"__typename": "ArtifactCollectionMembership", **dated, **where}

    def _artifact(self, name: str) -> dict[str, Any]:
        """All that the client asks of a version. Its id is its name here."""
        return {
            "__typename": "Artifact",
            "id": name,
            "artifactSequence": _collection(name),
            "versionIndex": 0,
            "artifactType": {"name": self.artifacts[name]},
            "description": None,
            "metadata": None,
            "ttlDurationSeconds": -1,
            "ttlIsInherited": False,
            "tags": [],
            "historyStep": None,
            "state": "COMMITTED",
            "size": 0,
            "digest": self.digests[name][-1],
            "commitHash": None,
            "fileCount": 1,
            "createdAt": "2026-01-01T00:00:00",
            "updatedAt": None,
            "aliases": [],
        }


def _collection(name: str) -> dict[str, Any]:
    return {"__typename": "ArtifactSequence", "id": "c", "name": name, "project": WHERE}
