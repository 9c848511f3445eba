"""Questions of lesson 00, Start here."""

from servicelab.quizzes import Answer, Quiz

QUIZZES = {
    "00.where_pods_run": Quiz(
        "You will start a pod in a moment. Which of the nodes above can it land on?",
        [
            Answer("On any of them", "The control plane is a node too, but it carries a *taint*: a sign that keeps ordinary pods away."),
            Answer(
                "On a worker",
                "Right. The control plane runs what steers the cluster, and a taint keeps ordinary pods off it.",
                right=True,
            ),
            Answer("On the control plane, then it moves", "A pod never moves. It lives and dies on the node that it was given."),
        ],
    ),
    "00.what_is_an_address": Quiz(
        "The pod `hello` runs on a node that has an address. What address does the pod have?",
        [
            Answer("The node's", "So it is with a program that you start on a machine. A pod is more like a machine of its own."),
            Answer(
                "None, until a Service gives it one", "A Service comes later and has another purpose. The pod can't do without an address."
            ),
            Answer("One of its own", "Right: every pod has an address of its own in the cluster. Lesson 01 is about it.", right=True),
        ],
    ),
    "00.what_keeps_a_pod": Quiz(
        "You start a pod from the curl image and give it nothing to do. What happens?",
        [
            Answer("It waits until you enter it", "Nothing in it waits. A container is its program, and no longer."),
            Answer(
                "Its program ends at once, and is started again and again",
                "Right: `curl` without an address ends at once. The kubelet restarts it, with growing pauses: `CrashLoopBackOff`.",
                right=True,
            ),
            Answer(
                "The pod is refused", "The API server doesn't know what is in an image. It accepts the pod, and the trouble shows later."
            ),
        ],
    ),
}
