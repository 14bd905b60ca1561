// Command moe-controlplane is the whole control plane of a small Kubernetes cluster in one binary.
//
// It acts by the name it is called with (a symlink), or by its first argument:
//
//	moe-controlplane kube-apiserver --etcd-servers=…
//	kubectl get nodes            (where kubectl is a symlink to moe-controlplane)
//
// Every program is upstream's own, entered where upstream's own main enters it. One binary instead of six,
// because they share nearly all of their code: 150 MB and one link instead of 600 MB and six.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// A program runs with its arguments, args[0] being its own name, and returns the exit status.
type program func(args []string) int

var programs = map[string]program{
	"etcd":                    runEtcd,
	"helm":                    runHelm,
	"kube-apiserver":          runAPIServer,
	"kube-controller-manager": runControllerManager,
	"kube-scheduler":          runScheduler,
	"kubectl":                 runKubectl,
}

func main() {
	args := os.Args
	args[0] = filepath.Base(args[0])
	run, known := programs[args[0]]
	if !known && len(args) > 1 {
		args = args[1:]
		run, known = programs[args[0]]
	}
	if !known {
		fmt.Fprintf(os.Stderr, "moe-controlplane: want one of %s as the first argument\n", names())
		os.Exit(64)
	}
	// Cobra, pflag and klog read the process-wide arguments and flags: show each program only its own.
	os.Args = args
	os.Exit(run(args))
}

func names() string {
	var all []string
	for name := range programs {
		all = append(all, name)
	}
	sort.Strings(all)
	return strings.Join(all, ", ")
}
