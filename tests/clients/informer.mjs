// Informers and watches of @kubernetes/client-node, driven by a test: node informer.mjs ENTRY KUBECONFIG CONTEXT MODE.
//
// ENTRY: the package's entry point. MODE informer: keeps pods and tells each change; a line on standard input is
// answered with all that is held. MODE watch: one Watch from the version of a list, told event by event. Output: one
// JSON document a line.
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [entry, kubeconfig, context, mode] = process.argv.slice(2);
const k8s = await import(pathToFileURL(entry).href);

const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
config.setCurrentContext(context);
const core = config.makeApiClient(k8s.CoreV1Api);
const tell = (document) => process.stdout.write(JSON.stringify(document) + '\n');
const PODS = '/api/v1/pods';

if (mode === 'informer') {
    const informer = k8s.makeInformer(config, PODS, () => core.listPodForAllNamespaces());
    for (const verb of ['add', 'update', 'delete']) {
        informer.on(verb, (pod) => tell({ verb, uid: pod.metadata.uid, version: pod.metadata.resourceVersion }));
    }
    // As its documentation says: on an error, start again after a while.
    informer.on('error', (error) => {
        tell({ verb: 'error', message: String(error) });
        setTimeout(() => informer.start(), 50);
    });
    informer.on('connect', () => tell({ verb: 'connect' }));
    createInterface(process.stdin).on('line', () => {
        const held = informer.list().map((pod) => [pod.metadata.uid, pod.metadata.resourceVersion]);
        tell({ verb: 'held', held: Object.fromEntries(held) });
    });
    await informer.start();
} else {
    const selected = await core.listPodForAllNamespaces({ labelSelector: 'app', fieldSelector: 'status.phase=Running' });
    const first = await core.listPodForAllNamespaces({ limit: 10 });
    const second = await core.listPodForAllNamespaces({ limit: 10, _continue: first.metadata._continue });
    tell({
        verb: 'lists',
        selected: selected.items.map((pod) => pod.metadata.uid),
        pages: [...first.items, ...second.items].map((pod) => pod.metadata.uid),
    });
    const { resourceVersion } = first.metadata;
    const done = () => process.exit(0);
    await new k8s.Watch(config).watch(
        PODS,
        { resourceVersion, allowWatchBookmarks: true, timeoutSeconds: 3 },
        (type, object) => tell({ verb: type, uid: object.metadata.uid, version: object.metadata.resourceVersion }),
        done,
    );
    tell({ verb: 'watching', version: resourceVersion });
}
