"""What pyproject.toml cannot say: a wheel takes along what lies at the root of the checkout."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithRoot(build_py):
    """`agentrl_resources.dagster_resources.PROJECT` finds these files in `agentrl_resources/project/` of a wheel."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # else the checkout is there
            project = Path(self.build_lib, "agentrl_resources", "project")
            shutil.copytree("dbt_like_sql", project / "dbt_like_sql", dirs_exist_ok=True)
            for name in ("constraints.txt", "workspace.yaml"):
                shutil.copy(name, project)


setup(cmdclass={"build_py": WithRoot})
