package scan_test

import (
	"context"
	"fmt"
	"log" //nolint:depguard // examples are main programs
	"os"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/stages"
)

func ExamplePolicy() {
	policy, err := scan.NewPolicy(scan.PolicyConfig{
		Threshold:     stages.SeverityHigh,
		IgnoreUnfixed: true,
		Ignore: []scan.Exception{
			{ID: "CVE-2020-28500", Package: "lodash", Reason: "the input is not the user's", Until: time.Now().AddDate(0, 1, 0)},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	image, err := stages.ParseImage("registry.example/shop@sha256:" + strings.Repeat("a", 64))
	if err != nil {
		log.Fatal(err)
	}
	decision, err := policy.Decide(context.Background(), stages.Report{
		Image: image, Scanner: "trivy 0.72.0", Database: time.Now(), Packages: 90,
		Findings: []stages.Finding{{
			ID: "CVE-2019-10744", Severity: stages.SeverityCritical, Package: "lodash", Installed: "4.17.4", Fixed: "4.17.12",
			Target: "app/node_modules/lodash/package.json",
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(decision.Verdict)
	for _, reason := range decision.Reasons {
		fmt.Println(reason.Rule, reason.Message)
	}
	// Output:
	// fail
	// CVE-2019-10744 CRITICAL lodash 4.17.4 → 4.17.12
}

func ExampleCommand() {
	ctx := context.Background()
	scanner, err := scan.NewCommand(ctx, scan.CommandConfig{
		Path:     "/usr/local/bin/trivy",
		CacheDir: "/var/cache/shop-delivery/trivy",
		Env:      []string{"HTTPS_PROXY=http://proxy.example:3128"},
	})
	if err != nil {
		log.Fatal(err)
	}
	image, err := stages.ParseImage("registry.example/shop@sha256:" + strings.Repeat("a", 64))
	if err != nil {
		log.Fatal(err)
	}
	report, err := scanner.Scan(ctx, image)
	if err != nil {
		log.Fatal(err)
	}
	if err := scan.WriteTable(os.Stdout, report); err != nil {
		log.Fatal(err)
	}
}
