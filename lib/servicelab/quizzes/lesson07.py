"""Questions of lesson 07, the capstone."""

from servicelab.quizzes import Answer, Quiz

QUIZZES = {
    "07.not_known": Quiz(
        "A caller reports *the name is not known*. How far did its request get?",
        [
            Answer(
                "To the Service, which has no endpoints",
                "Then the name would have an address. A Service without endpoints still has its own.",
            ),
            Answer(
                "Not even to the Service: it has not left the caller",
                "Right: without an address there is nowhere to send a packet. Neither Service nor pods had a part in it.",
                right=True,
            ),
            Answer("To a pod, which does not know the name", "A pod's nginx here answers whatever name it is called by."),
        ],
    ),
    "07.refused": Quiz(
        "A caller reports that *nobody takes the connection*. What is behind it?",
        [
            Answer(
                "The Service has no endpoints", "It may be that: a node refuses what it can send nowhere. But there is more that it may be."
            ),
            Answer(
                "Its pods run, and aren't ready",
                "It may be that: a pod that isn't ready gets no connections. But there is more that it may be.",
            ),
            Answer(
                "It is sent to a port of the pods where nobody listens",
                "It may be that: then the pod's own kernel refuses. But there is more that it may be.",
            ),
            Answer(
                "Each of these; the symptom alone does not tell",
                "Right: three causes, one symptom. That is why the tree asks for pods, then endpoints, then ports.",
                right=True,
            ),
        ],
    ),
    "07.two_at_once": Quiz(
        "A Service's selector has a typo, *and* the pods it should find aren't ready. You mend the selector. What do callers notice?",
        [
            Answer("They get their answers", "The pods are found now. But does a Service send to pods that aren't ready?"),
            Answer("Half of them get answers", "Neither of the pods is ready, so neither gets a connection."),
            Answer(
                "Nothing: they are refused as before",
                "Right, and it was no mistake. Keep what you have mended, and begin at the top of the tree again.",
                right=True,
            ),
        ],
    ),
    "07.no_probe": Quiz(
        "A readiness probe never passes. Someone deletes the probe, and everything works. What has been lost?",
        [
            Answer("Nothing: it was broken anyway", "The question was wrong, and not that there was one."),
            Answer("The pod is never restarted any more", "That is the *liveness* probe. Readiness restarts nothing."),
            Answer(
                "From now on new pods get connections before their program listens",
                "Right: without a probe a pod is ready as soon as its container runs. The next rollout loses requests.",
                right=True,
            ),
        ],
    ),
}
