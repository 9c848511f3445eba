"""Checks of lesson 00, both ways."""


def test_hello_runs(asked):
    asked.fails("hello_runs", saying="there is no pod hello", hint="kubectl run hello --image=nginx:1.29-alpine")
    asked.run("run hello --image=nginx:1.29-alpine --restart=Never --command -- false")
    asked.fails("hello_runs", saying="pod hello", hint="kubectl describe pod hello")
    nowhere = '--overrides={"spec":{"nodeSelector":{"moon":"yes"}}}'
    asked.run("delete pod hello --grace-period=0 --force", f"run hello --image=nginx:1.29-alpine {nowhere}")
    asked.fails("hello_runs", saying="on no node yet", hint="kubectl describe pod hello")
    asked.run("delete pod hello", "run hello --image=nginx:1.29-alpine")
    assert "address" in asked.passes("hello_runs")


def test_client_stays(asked):
    asked.fails("client_stays", saying="there is no pod client", hint="--command -- sleep infinity")
    asked.run("run client --image=nginx:1.29-alpine")
    asked.fails("client_stays", saying="not the curl image", hint="kubectl delete pod client")
    asked.run("delete pod client", "run client --image=curlimages/curl:8.16.0")
    asked.fails("client_stays", saying="starts and ends at once", hint="as long as its program")
    asked.run("delete pod client", "run client --image=curlimages/curl:8.16.0 --command -- sleep infinity")
    assert "sleep infinity" in asked.passes("client_stays")


def test_client_asked_hello(asked):
    asked.fails("client_asked_hello", saying="there is no pod hello", hint="kubectl run hello")
    asked.run("run hello --image=nginx:1.29-alpine")
    asked.kube.wait("condition=Ready", "pod/hello")
    asked.fails("client_asked_hello", saying="there is no pod client", hint="exercise above")
    asked.run("run client --image=curlimages/curl:8.16.0 --command -- sleep infinity")
    asked.kube.wait("condition=Ready", "pod/client")
    address = asked.kube.get("pod", "hello")["status"]["podIP"]
    asked.run("exec hello -- curl -s -o /dev/null http://localhost")
    asked.fails("client_asked_hello", saying="(it has 1 from elsewhere)", hint=f"kubectl exec client -- curl -s http://{address}")
    asked.run(f"exec client -- curl -s -o /dev/null http://{address}")
    assert "request" in asked.passes("client_asked_hello")
