"""Questions of lesson 04, DNS."""

from servicelab.quizzes import Answer, Quiz

QUIZZES = {
    "04.who_is_asked": Quiz(
        "A pod wants to know the address of `my-nginx`. Whom does it ask?",
        [
            Answer("The API server", "A pod needs no right to talk to the API server. It asks as any program does: by DNS."),
            Answer(
                "A DNS server that is itself behind a Service",
                "Right: the Service `kube-dns`, at an address that every pod finds in its `/etc/resolv.conf`.",
                right=True,
            ),
            Answer(
                "The kubelet of its node",
                "The kubelet writes the pod's `/etc/resolv.conf` when the pod starts. It answers no questions afterwards.",
            ),
            Answer("kube-proxy", "kube-proxy knows addresses, not names: it works on packets that already have one."),
        ],
    ),
    "04.short_name": Quiz(
        "The DNS server knows `my-nginx.default.svc.cluster.local`. How can a pod get away with the short `my-nginx`?",
        [
            Answer(
                "The DNS server guesses the namespace from the pod's address",
                "It could, but it doesn't: the same question from two namespaces arrives there as two different names.",
            ),
            Answer("The server keeps a short copy of every name", "Then two Services of one name in two namespaces would collide."),
            Answer(
                "The pod's resolver appends endings from a search list until one is found",
                "Right: the list is in `/etc/resolv.conf`, and its first entry is the pod's own namespace.",
                right=True,
            ),
        ],
    ),
    "04.other_namespace": Quiz(
        "Your pod is in namespace `default` and wants the Service `kube-dns` of `kube-system`. Which is the shortest name that works?",
        [
            Answer("`kube-dns`", "The search list would look for it in your own namespace first, and nowhere else by that name."),
            Answer(
                "`kube-dns.kube-system`",
                "Right: the second ending of the search list, `svc.cluster.local`, makes it whole.",
                right=True,
            ),
            Answer(
                "Only `kube-dns.kube-system.svc.cluster.local`",
                "That works everywhere. The search list makes a shorter one work inside of the cluster.",
            ),
        ],
    ),
    "04.old_pod": Quiz(
        "The client pod has been running for minutes. Now a Service `late` is made. What does the client know about it?",
        [
            Answer("Nothing, until it is restarted", "So it is with variables (lesson 03). A name is looked up when it is used."),
            Answer(
                "Its name leads to it at once, but there are no `LATE_…` variables",
                "Right: variables are fixed when a container starts, and DNS is asked at the moment of need.",
                right=True,
            ),
            Answer("Both: Kubernetes adds the variables to the running process", "Nobody can change the environment of a running process."),
        ],
    ),
    "04.headless": Quiz(
        "A Service with `clusterIP: None` has no address of its own. What does DNS answer for its name?",
        [
            Answer("That the name doesn't exist", "The Service exists, and so does its name."),
            Answer(
                "The addresses of all of its ready pods",
                "Right: the client gets all of them, and chooses for itself. No rule translates anything.",
                right=True,
            ),
            Answer("The address of one pod, another one each time", "The order may change from answer to answer; all of them are in each."),
            Answer("The address of the node", "Names lead to pods or Services here. Nodes come in lesson 06."),
        ],
    ),
}
