"""Names of figures of classes that were trained on."""

from __future__ import annotations

from metric_module.report.closed_set import explained, titled


def test_a_closed_set_is_named_and_counted() -> None:
    whole, part = {"classes": 4.0, "classes_trained_on": 4.0}, {"classes": 4.0, "classes_trained_on": 3.0}
    assert titled("val", whole) == "val (closed set)" and titled("val", part) == "val (partly closed set)"
    assert titled("val", {"classes_trained_on": 2}) == "val (closed set)", (
        "a data module that does not count the others"
    )
    assert titled("val", {"classes_trained_on": 0, "classes": 4}) == titled("val", {"mrr": 0.5}) == "val"
    said = "closed set: 4 of the 4 classes of val and 3 of the 4 classes of test were trained on, so their figures are"
    assert explained({"raw": {"mrr": 1.0}, "val": whole, "test": part}) == f"{said} not those of unseen classes"
    assert explained({"val": {"mrr": 0.5}}) == ""
