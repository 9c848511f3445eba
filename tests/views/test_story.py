"""Endpoints over time: the story made of events, and when it is over."""

from view_objects import endpoint_slice, pod, service, world

from servicelab.views.story import Story

WEB = service("web")
NAME = "web-66b6c48dd5-aaaaa"


def at(*pods, members=()):
    return world(list(pods), [WEB], [endpoint_slice("web", *members)])


def web(name=NAME, **kind):
    return pod(name, owner="web", **kind)


def test_a_pod_that_is_replaced():
    story = Story("web")
    old, new = web(), web("web-66b6c48dd5-bbbbb", ip="10.244.2.2")
    story.look(0, at(old, members=[old]))
    assert story.settled()
    ending = web(deleting=True)
    story.look(1, at(ending, web("web-66b6c48dd5-bbbbb", ip="", phase="Pending", ready=False), members=[ending]))
    assert not story.settled()
    story.look(2, at(ending, web("web-66b6c48dd5-bbbbb", ip="10.244.2.2", ready=False)))
    story.look(3, at(new, members=[new]))
    assert story.settled()
    assert story.counts == [(0, 1), (1, 0), (3, 1)]
    assert story.lives[f"uid-{NAME}"].states == [(0, "ready"), (1, "terminating"), (3, "gone")]
    assert story.lives[f"uid-{NAME}"].membership == [(0, "in"), (1, "serving"), (2, "out")]
    assert (
        story.text()
        == "endpoints of web: 1 ready at the start, 1 ready at the end\n  1 × pending → ready\n  1 × ready → terminating → gone"
    )


def test_a_moment_that_a_watch_may_miss_makes_no_other_text_but_a_failing_probe_does():
    slow, quick = Story("web"), Story("web")
    for story, moments in (
        (slow, [("Pending", False), ("Running", False), ("Running", True)]),
        (quick, [("Pending", False), ("Running", True)]),
    ):
        for number, (phase, ready) in enumerate(moments):
            seen = web(phase=phase, ready=ready)
            story.look(number, at(seen, members=[seen]))
    assert slow.text() == quick.text()
    slow.look(9, at(web(ready=False), members=[web(ready=False)]))
    assert "ready → not ready" in slow.text()
    assert slow.settled()  # a pod whose probe fails, out of the slice, is a state that may last


def test_nothing_new_writes_nothing_and_labels_taken_away_end_membership():
    story = Story("web")
    member = web()
    assert story.look(0, at(member, members=[member]))
    assert not story.look(1, at(member, members=[member]))
    renamed = web(labels={"app": "other"})
    assert story.look(2, at(renamed))
    assert story.lives[member["metadata"]["uid"]].state == "ready"
    assert not story.lives[member["metadata"]["uid"]].member


def test_a_service_without_pods_or_without_itself():
    story = Story("web")
    assert story.text() == "endpoints of web: nothing seen yet"
    story.look(0, at())
    assert story.settled()
    story.look(1, world())
    assert story.text() == "endpoints of web: 0 ready at the start, 0 ready at the end"
