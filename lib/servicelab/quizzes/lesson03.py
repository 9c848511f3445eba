"""Questions of lesson 03, Environment variables."""

from servicelab.quizzes import Answer, Quiz

QUIZZES = {
    "03.order": Quiz(
        "The pods were started first, the Service was made after them. Do the pods have the variable `MY_NGINX_SERVICE_HOST`?",
        [
            Answer(
                "Yes: variables follow the Service",
                "Nobody can change the environment of a running process from outside, not even Kubernetes.",
            ),
            Answer("No", "Right: a process gets its environment once, when it starts. There was no Service then.", right=True),
            Answer("Only the pods on the Service's node", "A Service is on no node at all: lesson 02."),
        ],
    ),
    "03.who_adds_them": Quiz(
        "Who puts the variables into a container?",
        [
            Answer(
                "kubectl, when it creates the pod",
                "So says the document. But the pods of a Deployment are made by a controller; no kubectl is near.",
            ),
            Answer(
                "The API server: it adds them to the pod's spec", "Then `kubectl get pod -o yaml` would show them. Look whether it does."
            ),
            Answer(
                "The kubelet of the pod's node",
                "Right: it knows the Services of that moment, and starts the container with them.",
                right=True,
            ),
        ],
    ),
    "03.stale": Quiz(
        "The Service is deleted and made anew, and gets another address. What do the running pods have in their variables?",
        [
            Answer("The new address", "Their environment was fixed when they started."),
            Answer(
                "The old address",
                "Right, and nobody tells them that it leads nowhere now. A name in DNS would have followed: lesson 04.",
                right=True,
            ),
            Answer("Nothing: the variables are taken away", "That would need a hand in the running process, and there is none."),
        ],
    ),
    "03.declined": Quiz(
        "A pod with `enableServiceLinks: false`. Which variables of Services does it still have?",
        [
            Answer("None at all", "Nearly. One Service is for every pod in the cluster."),
            Answer(
                "Those of the API server's own Service, `kubernetes`",
                "Right: they are always there, so that a program can find its API.",
                right=True,
            ),
            Answer("Those of Services in its own namespace", "They are exactly what it has declined."),
        ],
    ),
}
