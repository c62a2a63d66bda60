"""What has become of a job of a group commit."""

from __future__ import annotations

from typing import Any

import msgspec

from cumulet.db.fair_queue import Job
from cumulet.db.transaction import Tx


class Ended(msgspec.Struct, eq=False):
    """Either its transaction, which is durable, and its result, or its error."""

    job: Job
    tx: Tx | None = None
    result: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        if self.error is not None:
            self.job.future.set_exception(self.error)
            return
        if self.tx is not None:
            self.tx.committed()
        self.job.future.set_result(self.result)
