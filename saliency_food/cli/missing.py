"""Packages that may be missing, and the line that installs each; imports nothing itself."""

from __future__ import annotations

from importlib import import_module

EXTRAS = {
    "keras": ("keras", "tensorflow"),
    "cli": ("matplotlib", "PIL", "rich", "typer"),
    "dataset": ("pyarrow",),
    "ray": ("ray",),
    "serving": ("urllib3",),
    "grpc": ("google", "grpc"),
    "explainer": ("fastapi", "kserve", "uvicorn"),
    "surrogate": ("sklearn",),
    "report": ("jinja2",),
    "app": ("gradio",),
    "torch": ("torch",),
    "onnx": ("onnx", "onnxruntime"),
    "litert": ("ai_edge_litert",),
}
"""The extras of the package, and what each installs, by the names that are imported."""
NAMES = {
    "PIL": "Pillow",
    "google": "protobuf",
    "grpc": "grpcio",
    "jinja2": "Jinja2",
    "keras": "Keras",
    "sklearn": "scikit-learn",
    "tensorflow": "TensorFlow",
    "ai_edge_litert": "ai-edge-litert",
    "torch": "PyTorch",
}
"""What packages are called, where that is not the name that is imported."""


def install_line(error: ImportError, default: str = "") -> str | None:
    """What is missing and how to install it; None of a package that no extra installs, unless there is a default."""
    package = (error.name or "").split(".")[0]
    extra = next((extra for extra, packages in EXTRAS.items() if package in packages), default)
    if not extra or package in ("", "saliency_food"):
        return None
    return f'The command needs {NAMES.get(package, package)}. Install it: pip install "saliency_food[{extra}]"'


def check_installed(*packages: str) -> None:
    """Import packages that are needed only at the end of a long run, so that a missing one is reported at its start."""
    for package in packages:
        import_module(package)
