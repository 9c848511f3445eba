"""Questions of lesson 02, Services."""

from servicelab.quizzes import Answer, Quiz

QUIZZES = {
    "02.what_it_remembers": Quiz(
        "A Service has to find its pods again and again, although they come and go. What does it remember of them?",
        [
            Answer("Their addresses", "Those change with every new pod, as lesson 01 showed."),
            Answer("Their names", "They change too: every new pod of a Deployment gets a new name."),
            Answer(
                "A label that they carry",
                "Right: the selector. Whatever pod carries the label and is ready belongs to the Service.",
                right=True,
            ),
        ],
    ),
    "02.after_a_death": Quiz(
        "One of the pods behind my-nginx is deleted. What becomes of the Service's own address?",
        [
            Answer(
                "It stays", "Right: it is bound to the life of the Service, not of any pod. Only the list behind it changes.", right=True
            ),
            Answer(
                "It changes once the new pod is there", "Then every client would have to look again, and that is what a Service saves them."
            ),
            Answer("It is gone until somebody repairs the Service", "Nobody has to: a controller keeps the list of pods up to date."),
        ],
    ),
    "02.how_it_chooses": Quiz(
        "A hundred requests to the cluster IP, each over a new connection. How do the pods share them?",
        [
            Answer("Strictly in turn", "Nobody keeps count. Each node's kernel decides by itself, connection by connection."),
            Answer(
                "By chance, each about as many as the others",
                "Right: the rule in the kernel draws a random number for each connection.",
                right=True,
            ),
            Answer(
                "The nearest pod gets all",
                "It could be told to prefer near pods (`trafficDistribution`), but by default every pod is as good as any other.",
            ),
        ],
    ),
    "02.where_is_it": Quiz(
        "On which machine is the Service's cluster IP configured?",
        [
            Answer("On the node with the most pods", "Then losing that node would lose the Service. Kubernetes avoids exactly that."),
            Answer("On every node", "Close: every node *knows* it. See in the next cell whether an interface has it."),
            Answer("On none", "Right, and the next cell proves it.", right=True),
        ],
    ),
    "02.no_pods": Quiz(
        "A Service whose selector fits no pod. What does a client see that calls it?",
        [
            Answer(
                "It can't be created",
                "A Service may be made before its pods. The API server checks the form of a selector, not whether it finds anything.",
            ),
            Answer("Its connection is refused at once", "Right: the address exists, and the rule for it is *reject*.", right=True),
            Answer("The page of some other Service", "A packet is sent only to a pod that the Service lists. This one lists none."),
        ],
    ),
}
