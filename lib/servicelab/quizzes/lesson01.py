"""Questions of lesson 01, Pod networking."""

from servicelab.quizzes import Answer, Quiz

QUIZZES = {
    "01.host_port": Quiz(
        "Three pods, and each claims port 8081 of the machine that it runs on. There are two workers. How many pods run?",
        [
            Answer("Three", "Two would share a machine, and both would claim its port 8081. A port has one owner."),
            Answer("Two", "Right: one on each worker. The third waits until a port 8081 is free somewhere.", right=True),
            Answer(
                "None: the Deployment is refused", "Each pod alone is valid. That there is no place for the third shows only in scheduling."
            ),
        ],
    ),
    "01.same_port": Quiz(
        "Six nginx pods, all listening on port 80, and no `hostPort` this time. How many can share a node?",
        [
            Answer("One", "So it was when the *machine's* port 80 was meant. Each pod has an address of its own, and its own port 80."),
            Answer("Two, if they use different ports", "They need not: two addresses, two ports 80."),
            Answer("As many as its memory and CPU allow", "Right: each has its own address, so no two ports 80 are the same.", right=True),
        ],
    ),
    "01.whose_address": Quiz(
        "The pod `curl` fetches a page from a pod on the other node. Which client address does the server write into its log?",
        [
            Answer(
                "The address of curl's node",
                "That would be network address translation (NAT), as Docker does it for what leaves the machine.",
            ),
            Answer("The address of the server's node", "It would be, if a proxy on that node had accepted the connection for the pod."),
            Answer("The address of the pod curl", "Right: nobody rewrites it on the way. The next cells prove it.", right=True),
        ],
    ),
    "01.localhost": Quiz(
        "Two containers in *one* pod: a web server and a client. What must the client fetch?",
        [
            Answer("`http://localhost`", "Right: the containers of a pod share one network, and so one localhost.", right=True),
            Answer("The address of the web container", "A container has no address. The pod has one, for all its containers."),
            Answer("It can't: containers are sealed off", "Their files are, and their processes. The network is the pod's."),
        ],
    ),
    "01.address_after": Quiz(
        "You delete every my-nginx pod, and the Deployment makes new ones. Which addresses do they get?",
        [
            Answer(
                "The ones of the pods that they replace",
                "They replace nobody in particular. A new pod is new in everything: name, address, place.",
            ),
            Answer("New ones", "Right. Whoever remembered an old address now talks to nobody.", right=True),
            Answer(
                "The same, as long as they stay on their node",
                "The node has a range of addresses, and takes the next free one for each new pod.",
            ),
        ],
    ),
}
