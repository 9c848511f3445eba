"""Questions of lesson 06, external exposure."""

from servicelab.quizzes import Answer, Quiz

QUIZZES = {
    "06.which_nodes": Quiz(
        "The Service has a node port. The control plane runs none of its pods. Does the control plane's address answer at that port?",
        [
            Answer("No: nothing listens there", "Nothing *listens* there, true. But who translated the cluster IP, on every node?"),
            Answer(
                "Yes: every node answers",
                "Right: kube-proxy on every node translates the port to one of the pods, wherever that is.",
                right=True,
            ),
            Answer("Only if a pod moves there", "The rule for the port is on all nodes from the beginning, pod or not."),
        ],
    ),
    "06.which_port": Quiz(
        "You want the node port to be 80, like any web server's. What will Kubernetes say?",
        [
            Answer("It takes it, if port 80 is free on all nodes", "It doesn't even look whether it is free."),
            Answer(
                "It refuses: a node port lies between 30000 and 32767",
                "Right: a range that collides neither with well-known ports nor (mostly) with those for outgoing connections.",
                right=True,
            ),
            Answer("It takes it, but only the root user may connect", "*Listening* below 1024 may be a privilege. Connecting never is."),
        ],
    ),
    "06.pending": Quiz(
        "You change the type to `LoadBalancer`. This cluster runs in no cloud. What will `EXTERNAL-IP` show?",
        [
            Answer("The address of a node", "Kubernetes itself never fills that column by guessing. It is somebody's task to do so."),
            Answer("An error: the type isn't supported here", "The API server takes it gladly. It only writes down what you want."),
            Answer(
                "`<pending>`, until somebody fills it",
                "Right: the address is given by a controller of the cloud, and here is no cloud.",
                right=True,
            ),
        ],
    ),
    "06.who_reaches_what": Quiz(
        "The Service now has a CLUSTER-IP and an EXTERNAL-IP. Which of them does the machine *outside* of the cluster reach?",
        [
            Answer("Both", "The cluster IP is known to the nodes' rules alone. Elsewhere it leads nowhere."),
            Answer("Only the external one", "Right: a machine on the network answers for it; nobody does for a cluster IP.", right=True),
            Answer("Only the cluster IP", "It is the other way round: the cluster IP is for the inside."),
        ],
    ),
    "06.whose_address": Quiz(
        "The outside machine sends a request to a node port. Whose address does nginx write into its access log?",
        [
            Answer("The outside machine's", "So one would wish. The answer must find its way back, and that costs the address. Look."),
            Answer(
                "One of the cluster's own: the node has put itself in between",
                "Right, as long as `externalTrafficPolicy` is `Cluster`: else the pod would answer past the node that was asked.",
                right=True,
            ),
            Answer("The Service's cluster IP", "That is only ever a destination. No packet comes *from* it, as seen by a pod."),
        ],
    ),
}
