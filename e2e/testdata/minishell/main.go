// Command minishell is the /bin/sh of the images that the build tests make from
// nothing: it runs the few commands below, separated by semicolons.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	for command := range strings.SplitSeq(os.Args[len(os.Args)-1], ";") {
		if words := strings.Fields(os.ExpandEnv(command)); len(words) > 0 {
			run(words[0], words[1:])
		}
	}
}

func run(command string, args []string) {
	switch command {
	case "echo":
		fmt.Println(strings.Join(args, " "))
	case "complain":
		fmt.Fprintln(os.Stderr, strings.Join(args, " "))
	case "cat":
		check(show(args[0]))
	case "write":
		check(os.WriteFile(args[0], []byte(strings.Join(args[1:], " ")), 0o644))
	case "stamp":
		check(os.WriteFile(args[0], []byte(time.Now().String()), 0o644))
	case "wait":
		// Not for a channel alone, which the runtime would see to be a deadlock.
		time.Sleep(time.Hour)
	case "exit":
		code, err := strconv.Atoi(args[0])
		check(err)
		os.Exit(code)
	default:
		check(fmt.Errorf("%s: not found", command))
	}
}

func show(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(os.Stdout, file)
	return err
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "minishell:", err)
		os.Exit(127)
	}
}
