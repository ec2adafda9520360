"""Lists what is in the image, as CycloneDX JSON on standard output: packages, versions, and licenses where known.

It runs inside the image, in the image's Python, and needs nothing that isn't there:

    docker run --rm -i --network none --entrypoint python3 kmeans:latest - <container/sbom.py >kmeans.cdx.json

An argument, if there is one, is the image's ID, and is written down. `make sbom` does both.
"""

import datetime
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import kmeans

Component = dict[str, Any]


def library(name: str, version: str, reference: str) -> Component:
    """Return a package as CycloneDX has it; the reference is its URL by github.com/package-url/purl-spec."""
    return {"type": "library", "name": name, "version": version, "purl": reference, "bom-ref": reference}


def debian_licenses(copyright_file: Path) -> list[dict[str, Any]]:
    """Return the licenses that a package's copyright file names, in Debian's spelling.

    There are none if the file is missing (the slim base images may drop it) or not machine-readable:
    www.debian.org/doc/packaging-manuals/copyright-format/1.0.
    """
    text = copyright_file.read_text(encoding="utf-8", errors="replace") if copyright_file.exists() else ""
    if not re.match(r"Format:.*copyright-format", text):
        return []
    names = {name.strip() for name in re.findall(r"^License:(.+)$", text, re.MULTILINE)}
    return [{"license": {"name": name}} for name in sorted(names - {""})]


def debian_packages() -> list[Component]:
    """Return the packages of the distribution that dpkg says are installed."""
    release = platform.freedesktop_os_release()
    distribution = f"{release['ID']}-{release.get('VERSION_ID', 'unknown')}"
    fields = ("db:Status-Status", "Package", "Version", "Architecture", "source:Package", "source:Version")
    layout = "\t".join(f"${{{field}}}" for field in fields) + "\n"
    listed = subprocess.run(  # noqa: S603 (no shell, and no text of a user)
        ["/usr/bin/dpkg-query", "--show", f"--showformat={layout}"], check=True, capture_output=True, text=True
    ).stdout
    found = []
    for line in listed.splitlines():
        status, name, version, architecture, source, source_version = line.split("\t")
        if status != "installed":
            continue
        # Security advisories speak of source packages.
        origin = f"{source}@{source_version}"
        qualifiers = f"arch={architecture}&distro={distribution}&upstream={quote(origin, safe='')}"
        reference = f"pkg:deb/{release['ID']}/{quote(name, safe='')}@{quote(version, safe='')}?{qualifiers}"
        component = library(name, version, reference)
        if licenses := debian_licenses(Path("/usr/share/doc", name, "copyright")):
            component["licenses"] = licenses
        found.append(component)
    return found


def python_licenses(package: importlib.metadata.Distribution) -> list[dict[str, Any]]:
    """Return what a package's metadata say: an SPDX expression, else a name, else its classifiers, else the text."""
    metadata: Any = package.metadata
    if expression := metadata.get("License-Expression"):
        return [{"expression": expression}]
    name = (metadata.get("License") or "").strip()
    if name and "\n" not in name:  # some put the whole text of the license there
        return [{"license": {"name": name}}]
    classifiers = [text.split(" :: ") for text in metadata.get_all("Classifier", [])]
    if names := [parts[-1] for parts in classifiers if parts[0] == "License"]:
        return [{"license": {"name": name}} for name in names]
    texts = [file for file in package.files or () if re.fullmatch(r"[^/]+\.dist-info/licenses/.+", str(file))]
    return [
        {"license": {"name": file.name, "text": {"contentType": "text/plain", "content": file.read_text("utf-8")}}}
        for file in texts
    ]


def compiled_in(package: importlib.metadata.Distribution, prefix: str) -> list[Component]:
    """Return what is compiled into a package's binaries, as the package itself says (PEP 770: .dist-info/sboms)."""
    found: list[Component] = []
    for file in package.files or ():
        if re.fullmatch(r"[^/]+\.dist-info/sboms/[^/]+\.json", str(file)):
            told = json.loads(file.read_text(encoding="utf-8"))
            if told.get("bomFormat") == "CycloneDX":
                found += told.get("components", [])
    for component in found:  # A reference is unique in the whole document.
        component["bom-ref"] = f"{prefix}#{component.get('bom-ref', component['name'])}"
    return found


def python_packages() -> list[Component]:
    """Return the packages that the image's Python can import, each with what is compiled into it."""
    found = []
    for package in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", package.name).lower()
        reference = f"pkg:pypi/{name}@{quote(package.version, safe='')}"
        component = library(package.name, package.version, reference)
        if licenses := python_licenses(package):
            component["licenses"] = licenses
        if parts := compiled_in(package, reference):
            component["components"] = parts
        found.append(component)
    return found


def bill_of_materials(image_id: str) -> dict[str, Any]:
    """Return the document: the image, and what is in it by name."""
    image: Component = {
        "type": "container",
        "name": "kmeans",
        "version": kmeans.__version__,
        "bom-ref": "image",
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    if image_id:
        image["properties"] = [{"name": "kmeans:image:id", "value": image_id}]
    components = sorted(debian_packages() + python_packages(), key=lambda component: component["bom-ref"])
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "component": image,
        },
        "components": components,
        "dependencies": [{"ref": "image", "dependsOn": [component["bom-ref"] for component in components]}],
    }


if __name__ == "__main__":
    print(json.dumps(bill_of_materials(sys.argv[1] if len(sys.argv) > 1 else ""), indent=2))
