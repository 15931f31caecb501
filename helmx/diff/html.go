package diff

import (
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

// fragment has no styles and no scripts of its own: its classes are for the page
// around it.
const fragment = `<section class="fairlead-plan">
<h2>Plan of {{.Release}}</h2>
<p class="summary">{{.Summary}}</p>
{{- range .Changes}}
<details class="change {{.Action}}">
<summary>{{.Title}} <span class="action">{{.Phrase}}</span></summary>
{{- if .Remarks}}
<ul class="remarks">
{{- range .Remarks}}
<li>{{.}}</li>
{{- end}}
</ul>
{{- end}}
{{- if .Lines}}
<pre class="diff">{{range .Lines}}<span class="{{.Class}}">{{.Text}}</span>
{{end}}</pre>
{{- end}}
</details>
{{- end}}
{{- range .Drift}}
<details class="drift">
<summary>{{.Title}} <span class="action">has drifted</span></summary>
<ul>
{{- range .Remarks}}
<li>{{.}}</li>
{{- end}}
</ul>
</details>
{{- end}}
{{- if .Notes}}
<ul class="notes">
{{- range .Notes}}
<li>{{.}}</li>
{{- end}}
</ul>
{{- end}}
</section>
`

type htmlPlan struct {
	Release, Summary string
	Changes, Drift   []htmlChange
	Notes            []string
}

type htmlChange struct {
	Action, Title, Phrase string
	Remarks               []string
	Lines                 []htmlLine
}

type htmlLine struct{ Class, Text string }

// HTML writes the plan as a fragment of HTML, a section of class fairlead-plan with
// details for each change. Everything that comes from the plan is escaped.
func HTML(w io.Writer, plan stages.Plan) error {
	page, err := template.New("plan").Parse(fragment)
	if err != nil {
		return fmt.Errorf("parse the template of plans: %w", err)
	}
	view := htmlPlan{Release: inline(plan.Release), Summary: Count(plan).String()}
	for _, c := range plan.Changes {
		view.Changes = append(view.Changes, htmlOf(c, title(c.Object), remarks(c)))
	}
	for _, c := range plan.Hooks {
		view.Changes = append(view.Changes, htmlOf(c, "hook "+title(c.Object), nil))
	}
	for _, d := range plan.Drift {
		view.Drift = append(view.Drift, htmlChange{Title: title(d.Object), Remarks: drifts(d)})
	}
	for _, d := range plan.Dangers {
		view.Notes = append(view.Notes, inline(fmt.Sprintf("danger (%s): %s: %s", d.Class, d.Object, d.Why)))
	}
	for _, n := range plan.Notes {
		view.Notes = append(view.Notes, inline(noteText(n)))
	}
	if err := page.Execute(w, view); err != nil {
		return fmt.Errorf("write the plan of release %s as HTML: %w", view.Release, err)
	}
	return nil
}

func htmlOf(c stages.Change, title string, remarks []string) htmlChange {
	out := htmlChange{Action: inline(string(c.Action)), Title: title, Phrase: phrase(c.Action), Remarks: remarks}
	for line := range strings.Lines(c.Diff) {
		text := inline(strings.TrimSuffix(line, "\n"))
		out.Lines = append(out.Lines, htmlLine{lineClass(text), text})
	}
	return out
}

func lineClass(line string) string {
	switch lineColor(line) {
	case bold:
		return "file"
	case cyan:
		return "place"
	case green:
		return "added"
	case red:
		return "removed"
	}
	return "same"
}
